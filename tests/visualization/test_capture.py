"""What is captured is what the module computed: its output follows from it, in float64."""

import pytest
import torch
from layer_loops import randomise
from loops import SIZES
from torch import Tensor, nn

from mmbiformer import BiFormer
from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.visualization import RoutedMap, capture_routing, routed_modules

VARIANTS = {
    'official': dict(padding='official'),
    'masked': dict(padding='masked'),
    'narrow queries': dict(qk_dim=4, scale=0.3),
    'soft': dict(routing='soft', padding='masked'),
    'straight through': dict(routing='straight_through'),
}
TINY = dict(arch=dict(embed_dims=(32, 64, 64, 64), depths=(1, 2, 1, 1)), partition_factor=4)


def output_of(module: BiLevelRoutingAttention, captured: RoutedMap, x: Tensor) -> Tensor:
    """The module's output for one map, from the attention of each of its tokens."""
    value, pad = (
        part.split(module.widths, dim=-1)[2].unflatten(-1, (module.num_heads, -1))
        for part in (module.qkv(x)[0], module.qkv.bias)
    )
    height, width = captured.size
    regions = torch.tensor(
        [[captured.region_of(y, x) for x in range(width)] for y in range(height)]
    )
    out = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            weights, padding = captured.attention(row, column)
            if module.routing == 'soft':  # values are weighted, too
                region = regions[row, column]
                chosen = captured.indices[0, region]
                factors = torch.zeros(module.partition_factor**2, dtype=x.dtype)
                affinity = captured.affinity[0, region, chosen] * module.scale
                factors[chosen] = affinity.softmax(-1)
                weights = weights * factors[regions]
            token = torch.einsum('nhw,hwnd->nd', weights, value) + padding[:, None] * pad
            out[0, row, column] = token.flatten()
    return module.proj(out)


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)
def test_the_output_follows_from_what_is_captured(height, width, s, variant):
    topk = min(2, s * s)
    module = randomise(BiLevelRoutingAttention(8, 2, s, topk, **variant, lce_kernel=None))
    x = torch.randn(1, height, width, 8, dtype=torch.float64)
    with torch.no_grad():
        with capture_routing(module) as captured:
            out = module(x)
        expected = output_of(module, captured[0], x)
    torch.testing.assert_close(expected, out, rtol=0, atol=1e-12)


def test_pooled_keys_have_a_map_of_their_own():
    pooling = dict(type='AdaptiveAvg', side=2)
    module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, pooling=pooling))
    x = torch.randn(1, 10, 12, 8, dtype=torch.float64)
    with torch.no_grad(), capture_routing(module) as captured:
        module(x)
    weights, padding = captured[0].attention(9, 3)
    assert weights.shape == (2, 8, 8)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert not padding.any()
    # Three regions of 2 x 2 pooled tokens.
    assert (weights[0] > 0).sum() == 3 * 4


@pytest.mark.parametrize('batch', [1, 2])
def test_weights_are_those_of_each_image_of_a_batch(batch):
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 2))
    maps = torch.randn(2, 7, 5, 8, dtype=torch.float64)[:batch]
    with torch.no_grad(), capture_routing(module) as together:
        module(maps)
    for number in range(batch):
        with torch.no_grad(), capture_routing(module) as alone:
            module(maps[number : number + 1])
        for one, other in zip(
            alone[0].attention(6, 2), together[0].attention(6, 2, image=number), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_regions_come_in_the_order_of_their_affinity():
    module = randomise(BiLevelRoutingAttention(8, 2, 4, 5))
    with torch.no_grad(), capture_routing(module) as captured:
        module(torch.randn(1, 9, 9, 8, dtype=torch.float64))
    (routed,) = captured
    affinity = routed.affinity.gather(-1, routed.indices)
    assert (affinity.diff() <= 0).all()
    torch.testing.assert_close(routed.affinity.topk(5).values, affinity)


@pytest.mark.parametrize('backend', ['reference', 'chunked', 'cpp', 'triton', 'flex'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_model_computes_the_same_to_the_bit(backend, dtype):
    torch.manual_seed(0)
    model = BiFormer(**TINY, attention_backend=backend).eval()
    image = torch.rand(2, 3, 32, 41)
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        expected = model(image)
        with capture_routing(model) as captured:
            outputs = model(image)
        again = model(image)
    assert [routed.name for routed in captured] == list(routed_modules(model))
    for output, after, truth in zip(outputs, again, expected, strict=True):
        assert torch.equal(output, truth)
        assert torch.equal(after, truth)
    assert not any('mix' in vars(module) for module in model.modules())


def test_a_fused_block_and_its_modules_give_the_same_attention():
    """The fused path never calls the attention itself."""
    torch.manual_seed(0)
    model = BiFormer(**TINY).eval().double()
    image = torch.rand(1, 3, 96, 129, dtype=torch.float64)
    captured = []
    for fused in (True, False):
        handles = (
            []
            if fused
            else [x.register_forward_hook(lambda *_: None) for x in routed_modules(model).values()]
        )
        with torch.no_grad(), capture_routing(model) as maps:
            model(image)
        captured.append(maps)
        for handle in handles:
            handle.remove()
    for one, other in zip(*captured, strict=True):
        assert torch.equal(one.indices, other.indices)
        torch.testing.assert_close(one.attention(2, 3), other.attention(2, 3))


def test_nothing_is_kept_of_modules_that_nobody_asked_for():
    model = BiFormer(**TINY).eval()
    name = list(routed_modules(model))[1]
    with torch.no_grad(), capture_routing(model, [name]) as captured:
        assert sum('mix' in vars(module) for module in model.modules()) == 1
        model(torch.rand(1, 3, 64, 64))
        model(torch.rand(1, 3, 64, 64))
    assert [routed.name for routed in captured] == [name, name]


def test_the_end_of_a_block_is_the_end_of_capturing():
    model = BiFormer(**TINY).eval()
    with pytest.raises(KeyError), capture_routing(model):
        raise KeyError
    assert not any('mix' in vars(module) for module in model.modules())


class TestRefusals:
    """What cannot be captured is said by name."""

    def refuse(self, text: str, model: nn.Module, *args) -> None:
        with pytest.raises(ValueError, match=text), capture_routing(model, *args):
            pass

    def test_a_model_without_routed_attention(self):
        self.refuse('Linear has no routed attention', nn.Linear(2, 2))

    def test_an_unknown_name(self):
        self.refuse(
            "no routed attention 'stages.9' among the 4 of", BiFormer(**TINY), ['stages.9']
        )

    def test_a_compiled_model(self):
        model = BiFormer(**TINY)
        model.stages[0].compile()
        self.refuse('compiled model', model)

    @pytest.mark.parametrize('place', [(7, 0), (0, 5), (-1, 0)])
    def test_a_token_outside_of_the_map(self, place):
        module = BiLevelRoutingAttention(8, 2, 3, 2)
        with torch.no_grad(), capture_routing(module) as captured:
            module(torch.rand(1, 7, 5, 8))
        with pytest.raises(ValueError, match=r'not in the map of 7 x 5 tokens'):
            captured[0].attention(*place)
