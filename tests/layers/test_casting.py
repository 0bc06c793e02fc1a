"""Parameters cast at once: the same numbers as autocast's, in fewer launches."""

import pytest
import torch
from gpu_block import STAGES, count_eager
from launches import CountLaunches
from torch import nn
from torch.nn.utils import parametrizations

from mmbiformer.layers import BiFormerBlock, BiLevelRoutingAttention
from mmbiformer.layers.casting import call_with_casts

bfloat16 = torch.autocast('cpu', torch.bfloat16)
ROUTED_SOFTLY = dict(routing='soft', parametric_routing=True)


def build(**options) -> tuple[BiFormerBlock, torch.Tensor]:
    torch.manual_seed(0)
    block = BiFormerBlock(32, BiLevelRoutingAttention(32, 2, 3, 2, **options))
    return block, torch.randn(2, 7, 8, 32).bfloat16()


def results(run, block, x) -> list[torch.Tensor]:
    """The output under autocast, and the gradients of what has any."""
    x = x.clone().requires_grad_()
    with bfloat16:
        out = run(block, x)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    leaves = [x, *(p for p in block.parameters() if p.requires_grad)]
    return [out, *torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)]


def freeze(block) -> None:
    block.mlp.fc1.requires_grad_(False)
    block.attn.qkv.bias.requires_grad_(False)


def parametrize(block) -> None:
    parametrizations.weight_norm(block.mlp.fc1)


def normalise_by_hook(block) -> None:
    nn.utils.weight_norm(block.mlp.fc2)


@pytest.mark.parametrize(
    ('options', 'change'),
    [
        ({}, lambda block: None),
        (ROUTED_SOFTLY, lambda block: None),
        (dict(lce_kernel=None), lambda block: None),
        ({}, freeze),
        ({}, parametrize),
        ({}, normalise_by_hook),
    ],
    ids=['plain', 'soft', 'no lce', 'frozen', 'parametrized', 'weight norm'],
)
@pytest.mark.filterwarnings('ignore:.*weight_norm.* is deprecated')
def test_bit_for_bit_as_autocast(options, change):
    block, x = build(padding='masked', **options)
    change(block)
    expected = results(lambda block, x: block(x), block, x)
    found = results(call_with_casts, block, x)
    for a, b in zip(found, expected, strict=True):
        assert a is b is None or torch.equal(a, b)
    assert all(p.dtype != torch.bfloat16 for p in block.parameters())


def test_padding_tokens_are_those_of_the_map():
    """The projection of a zero token under autocast is the bias in bfloat16."""
    block, x = build()
    found = results(call_with_casts, block, x)
    bias = block.attn.qkv.bias
    bias.data = bias.data.bfloat16().float()
    expected = results(lambda block, x: block(x), block, x)
    names = ['output', 'x', *(name for name, _ in block.named_parameters())]
    for name, a, b in zip(names, found, expected, strict=True):
        if name == 'attn.qkv.bias':  # what tokens and padding give is added up in bfloat16
            assert (a - b).abs().max() <= 2**-8 * b.abs().max()
        else:
            assert torch.equal(a, b), name


@pytest.mark.parametrize('shape', STAGES, ids=['stage 1', 'stage 2', 'stage 3'])
def test_launches_on_gpus(shape):
    """Of a routed block under autocast at 800 x 1344; one by one there are 38 casts."""
    forward, backward = count_eager(*shape)
    assert forward.casts() + backward.casts() <= 10
    assert forward.total() <= 32, forward
    assert backward.total() <= 37, backward


def test_without_autocast_nothing_is_cast():
    block, x = build()
    with CountLaunches() as launches:
        call_with_casts(block, x.float())
    assert not launches.launches['_foreach_copy_']


def test_the_router_is_not_rounded():
    """Its weights are used in float32, as what it decides sends whole regions elsewhere."""
    block, x = build(**ROUTED_SOFTLY)
    seen = []
    block.attn.router.register_forward_hook(lambda module, args, out: seen.append(module.weight))
    with bfloat16:
        call_with_casts(block, x)
    assert seen[0].dtype == torch.float32


def test_a_block_of_no_parameters():
    with bfloat16:
        assert call_with_casts(nn.ReLU(), torch.ones(1, 2, 2, 4)).sum() == 16


def test_gradients_of_what_was_not_used():
    """A branch that is skipped leaves no gradient, and zeros for it would move the optimizer."""
    block, x = build()
    block.mlp.forward = lambda x: x
    with bfloat16:
        call_with_casts(block, x).float().sum().backward()
    assert block.mlp.fc1.weight.grad is None
    assert block.attn.proj.weight.grad is not None
