"""The fused path of a block against the modules it stands in for."""

import pytest
import torch
from fused_blocks import DIM, is_fused, make_block, plain, results, unfuse
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmbiformer.layers import (
    Attention,
    BiFormerBlock,
    block,
    depthwise,
    fused,
)
from mmbiformer.layers.casting import call_with_casts


@pytest.fixture(autouse=True)
def _no_map_is_small(monkeypatch):
    monkeypatch.setattr(depthwise, 'SMALL_MAP', 0)


@pytest.mark.parametrize('attention', ['routed', 'full'])
@pytest.mark.parametrize('drop_path', [0.0, 0.5])
@pytest.mark.parametrize('length', [1, 7, 1000], ids='{} tokens a span'.format)
def test_equals_the_modules(monkeypatch, length, drop_path, attention):
    module, x = make_block(attention, drop_path), torch.randn(3, 5, 7, DIM, dtype=torch.float64)
    assert is_fused(module, x)
    expected = plain(monkeypatch, module, x)
    monkeypatch.setattr(fused, 'BYTES_PER_THREAD', length * 3 * DIM * 8 // torch.get_num_threads())
    for result, truth in zip(results(module, x), expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-11)
    for without_grad in (torch.no_grad, torch.inference_mode):
        with without_grad():
            torch.manual_seed(1)
            torch.testing.assert_close(module(x), expected[0], rtol=0, atol=1e-11)


def test_samples_are_dropped_where_the_modules_drop_them():
    module, x = make_block(drop_path=0.5), torch.randn(16, 3, 3, DIM, dtype=torch.float64)
    positioned = x + module.conv_position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    unchanged = (results(module, x)[0] == positioned).flatten(1).all(1)
    assert 0 < unchanged.sum() < 16


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_error_is_at_most_twice_the_modules(monkeypatch, dtype):
    # One region: nothing is routed elsewhere for rounding.
    module = make_block('full', dtype=dtype)
    x = torch.randn(2, 24, 22, DIM, dtype=dtype)
    exact = make_block('full')
    exact.load_state_dict(module.state_dict())
    truth = plain(monkeypatch, exact, x.double())
    theirs = plain(monkeypatch, module, x)
    monkeypatch.setattr(fused, 'BYTES_PER_THREAD', 40 * 3 * DIM * dtype.itemsize)
    names = ['out', 'x', *(name for name, _ in module.named_parameters())]
    for name, own, other, true in zip(names, results(module, x), theirs, truth, strict=True):
        # The convolution's float32 sums: tests/layers/test_depthwise.py.
        bound = 8 if name == 'attn.lce.weight' and dtype == torch.float32 else 2
        assert (own - true).norm() <= bound * (other - true).norm(), name


@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])
def test_hidden_activations_are_kept_for_training_alone(monkeypatch, grad):
    module, x = make_block(dtype=torch.float32), torch.randn(1, 16, 16, DIM)
    monkeypatch.setattr(fused, 'BYTES_PER_THREAD', 64 * 3 * DIM * 4 // torch.get_num_threads())
    hidden = []
    original = fused._gelu_of_linear

    def gelu_of_linear(out, *args, **kwargs):
        hidden.append(out)
        return original(out, *args, **kwargs)

    monkeypatch.setattr(fused, '_gelu_of_linear', gelu_of_linear)
    with torch.set_grad_enabled(grad):
        fused.add_norm_mlp(x, None, module.norm2, module.mlp)
    assert len(hidden) == 4
    assert len({out.data_ptr() for out in hidden}) == (4 if grad else 1)


def test_without_gradients_a_block_works_in_place(monkeypatch):
    module, x = make_block(), torch.randn(2, 5, 7, DIM, dtype=torch.float64)
    made = []

    def add_depthwise_conv(*args):
        made.append(depthwise.add_depthwise_conv(*args))
        return made[-1]

    monkeypatch.setattr(block, 'add_depthwise_conv', add_depthwise_conv)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            out = module(x)
        assert (out.data_ptr() == made[-1].data_ptr()) != grad


@pytest.mark.parametrize('attention', ['routed', 'full'])
@pytest.mark.parametrize('batch', [1, 3])
def test_a_map_of_another_layout(monkeypatch, batch, attention):
    module = make_block(attention)
    x = torch.randn(batch, DIM, 5, 7, dtype=torch.float64).permute(0, 2, 3, 1)
    with torch.no_grad():
        out = module(x)
        unfuse(monkeypatch)
        torch.testing.assert_close(out, module(x.contiguous()), rtol=0, atol=1e-11)


@pytest.mark.parametrize('attention', ['routed', 'full'])
def test_the_input_is_left_alone(attention):
    module, x = make_block(attention), torch.randn(2, 5, 7, DIM, dtype=torch.float64)
    before = x.clone()
    with torch.no_grad():
        assert module(x).data_ptr() != x.data_ptr()
    assert torch.equal(x, before)


def test_a_hook_sees_what_the_convolution_returns():
    module, x = make_block(), torch.randn(2, 5, 7, DIM, dtype=torch.float64)
    seen = []
    with torch.no_grad():
        expected = module(x)
        module.conv_position.register_forward_hook(lambda *args: seen.append(args[2]))
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-11)
        assert torch.equal(seen[0], module.conv_position(x.permute(0, 3, 1, 2)))


def test_no_samples():
    module = make_block(dtype=torch.float32, drop_path=0.5)
    out = module(torch.rand(0, 4, 4, DIM))
    assert out.shape == (0, 4, 4, DIM)
    out.sum().backward()
    assert module.mlp.fc1.weight.grad.abs().sum() == 0


def test_keeps_less_for_the_backward_pass(monkeypatch):
    module, x = make_block(dtype=torch.float32), torch.randn(1, 12, 12, DIM)

    def kept_bytes() -> int:
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            module(x.clone().requires_grad_())
        parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
        return sum(size for where, size in storages.items() if where not in parameters)

    own = kept_bytes()
    unfuse(monkeypatch)
    # In maps of C channels. Fused: 2 inputs of a norm, the position's input, qkv (3), the
    # projection's input, the activation's input (3). The modules: 2 outputs of norms and
    # the activation's output (3) more.
    map_bytes = x.numel() * 4
    assert 10 <= own / map_bytes < 11
    assert kept_bytes() / map_bytes >= 15


@pytest.mark.parametrize('call', [block.BiFormerBlock.__call__, call_with_casts])
@pytest.mark.parametrize('drop_path', [0.0, 0.5])
# A backbone's blocks get maps in bfloat16: a convolution has made them.
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_error_under_autocast_is_at_most_twice_the_modules(monkeypatch, dtype, drop_path, call):
    module = make_block('full', drop_path, torch.float32)
    x = torch.randn(3, 24, 22, DIM, dtype=dtype)
    exact = make_block('full', drop_path)
    exact.load_state_dict(module.state_dict())
    truth = plain(monkeypatch, exact, x.double())
    monkeypatch.setattr(fused, 'BYTES_PER_THREAD', 40 * 3 * DIM * 4)
    with torch.autocast('cpu', torch.bfloat16):
        assert is_fused(module, x)

    def under_autocast(x):
        with torch.autocast('cpu', torch.bfloat16):
            return call(module, x)

    own = results(module, x, under_autocast)
    theirs = plain(monkeypatch, module, x, under_autocast)
    names = ['out', 'x', *(name for name, _ in module.named_parameters())]
    for name, a, b, true in zip(names, own, theirs, truth, strict=True):
        assert a.dtype == b.dtype == (dtype if name in ('out', 'x') else torch.float32)
        assert (a - true).norm() <= 2 * (b - true).norm(), name


class _Elsewhere(Attention):
    """An attention that this package does not know: each token is given the mean of its image."""

    def __init__(self):
        super().__init__()
        self.value, self.proj = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def mix(self, x):
        return self.value(x).mean((1, 2), keepdim=True).expand(x.shape)


def test_an_attention_from_elsewhere_is_fused(monkeypatch):
    module = BiFormerBlock(DIM, _Elsewhere(), drop_path=0.5).double()
    x = torch.randn(3, 4, 5, DIM, dtype=torch.float64)
    assert is_fused(module, x)
    for result, truth in zip(results(module, x), plain(monkeypatch, module, x), strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-11)
