"""The lean block against the modules it stands in for."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmbiformer.layers import (
    BiFormerBlock,
    BiLevelRoutingAttention,
    FullAttention,
    block,
    depthwise,
    lean,
)

DIM = 64


def make_block(attention='routed', drop_path=0.0, dtype=torch.float64) -> BiFormerBlock:
    """With every parameter drawn from a normal distribution."""
    torch.manual_seed(0)
    if attention == 'routed':
        module = BiLevelRoutingAttention(DIM, 2, 3, 2, backend='chunked')
    else:
        module = FullAttention(DIM)
    made = BiFormerBlock(DIM, module, drop_path).to(dtype)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return made


def results(module: BiFormerBlock, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and the gradients of the input and of every parameter; dropping from a seed."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    out = module(x)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad(out, [x, *module.parameters()], grad_out.to(x.dtype))
    return [out.detach(), *grads]


def plain(monkeypatch, *args) -> list[torch.Tensor]:
    """The same without the lean block, and with PyTorch's own convolution."""
    with monkeypatch.context() as patch:
        patch.setattr(block, 'is_lean', lambda *_: False)
        patch.setattr(depthwise, 'is_lean', lambda *_: False)
        return results(*args)


@pytest.mark.parametrize('attention', ['routed', 'full'])
@pytest.mark.parametrize('drop_path', [0.0, 0.5])
@pytest.mark.parametrize('rows', [1, 7, 1000], ids='{} rows a chunk'.format)
def test_equals_the_modules(monkeypatch, rows, drop_path, attention):
    module, x = make_block(attention, drop_path), torch.randn(3, 5, 7, DIM, dtype=torch.float64)
    assert module._is_lean(x)
    expected = plain(monkeypatch, module, x)
    monkeypatch.setattr(lean, 'BYTES_PER_THREAD', rows * 3 * DIM * 8 // torch.get_num_threads())
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
    monkeypatch.setattr(lean, 'BYTES_PER_THREAD', 40 * 3 * DIM * dtype.itemsize)
    names = ['out', 'x', *(name for name, _ in module.named_parameters())]
    for name, own, other, true in zip(names, results(module, x), theirs, truth, strict=True):
        # The convolution's float32 sums: tests/layers/test_depthwise.py.
        bound = 8 if name == 'attn.lce.weight' and dtype == torch.float32 else 2
        assert (own - true).norm() <= bound * (other - true).norm(), name


@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])
def test_hidden_activations_are_kept_for_training_alone(monkeypatch, grad):
    module, x = make_block(dtype=torch.float32), torch.randn(1, 16, 16, DIM)
    monkeypatch.setattr(lean, 'BYTES_PER_THREAD', 64 * 3 * DIM * 4 // torch.get_num_threads())
    seen = []
    addmm = torch.addmm
    monkeypatch.setattr(
        torch, 'addmm', lambda *args, out=None: seen.append(out) or addmm(*args, out=out)
    )
    with torch.set_grad_enabled(grad):
        lean.add_norm_mlp(x, None, module.norm2, *module.mlp[::2])
    hidden = [out.data_ptr() for out in seen if out.shape[1] == 3 * DIM]
    assert len(hidden) == 4
    assert len(set(hidden)) == (4 if grad else 1)


def test_without_gradients_a_block_works_in_place(monkeypatch):
    module, x = make_block(), torch.randn(2, 5, 7, DIM, dtype=torch.float64)
    made = []

    def depthwise_conv(*args):
        made.append(depthwise.depthwise_conv(*args))
        return made[-1]

    monkeypatch.setattr(block, 'depthwise_conv', depthwise_conv)
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
        monkeypatch.setattr(block, 'is_lean', lambda *_: False)
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
    assert module.mlp[0].weight.grad.abs().sum() == 0


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
    monkeypatch.setattr(block, 'is_lean', lambda *_: False)
    # In maps of C channels. Lean: 2 inputs of a norm, the position's input, qkv (3), the
    # projection's input, the activation's input (3). The modules: 2 outputs of norms and
    # the activation's output (3) more.
    map_bytes = x.numel() * 4
    assert 10 <= own / map_bytes < 11
    assert kept_bytes() / map_bytes >= 15


@pytest.mark.parametrize('part', ['norm2', 'mlp', 'mlp.0', 'attn', 'attn.qkv', 'attn.lce'])
def test_a_hook_on_a_part_is_called(part):
    module, seen = make_block(), []
    module.get_submodule(part).register_forward_hook(lambda *args: seen.append(args))
    module(torch.randn(1, 4, 4, DIM, dtype=torch.float64))
    assert len(seen) == 1


def test_a_hook_on_the_block_leaves_it_lean():
    module, seen = make_block(), []
    module.register_forward_hook(lambda *args: seen.append(args))
    x = torch.randn(1, 4, 4, DIM, dtype=torch.float64)
    assert module._is_lean(x)
    module(x)
    assert len(seen) == 1


def test_a_backward_hook_on_the_local_context_runs():
    module, seen = make_block(), []
    module.attn.lce.register_full_backward_hook(lambda *args: seen.append(args))
    module(torch.randn(1, 4, 4, DIM, dtype=torch.float64)).sum().backward()
    assert len(seen) == 1


class _Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class _Doubled(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return 2 * self.module(x)


class _Wrapper(_Doubled):
    """Hands all else on, as wrappers of torch do."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


CHANGES = {
    'class': lambda m: setattr(m.mlp[2], '__class__', _Twice),
    'forward': lambda m: setattr(
        m.norm2, 'forward', lambda x: 2 * nn.LayerNorm.forward(m.norm2, x)
    ),
    'activation': lambda m: m.mlp.__setitem__(1, nn.ReLU()),
    'tanh': lambda m: m.mlp.__setitem__(1, nn.GELU('tanh')),
    'dropout': lambda m: m.mlp.append(nn.Dropout(0.5)),
    'norm': lambda m: setattr(m, 'norm2', nn.RMSNorm(DIM)),
    'norm without weights': lambda m: setattr(m, 'norm1', nn.LayerNorm(DIM, bias=False)),
    'no bias': lambda m: setattr(m.mlp[2], 'bias', None),
    'no drop path': lambda m: setattr(m, 'drop_path', nn.Identity()),
    'parametrised': lambda m: nn.utils.parametrizations.weight_norm(m.attn.proj),
    'mlp': lambda m: setattr(m, 'mlp', _Doubled(m.mlp)),
    'attention': lambda m: setattr(m, 'attn', _Wrapper(m.attn)),
    'other kernel': lambda m: setattr(
        m.attn, 'lce', nn.Conv2d(DIM, DIM, (1, 7), padding=(0, 3), groups=DIM)
    ),
    'dilated': lambda m: [
        setattr(m.attn.lce, n, (v, v)) for n, v in (('dilation', 2), ('padding', 4))
    ],
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_parts_that_were_changed_run(monkeypatch, change):
    module = make_block()
    change(module)
    module.double()
    x = torch.randn(2, 6, 7, DIM, dtype=torch.float64)
    expected = plain(monkeypatch, module, x)
    for result, truth in zip(results(module, x), expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    'register',
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ],
)
def test_global_hooks_hear_every_module(register):
    module, heard = make_block(), set()
    handle = register(lambda part, *_: heard.add(part) and None)
    try:
        module(torch.randn(1, 4, 4, DIM, dtype=torch.float64, requires_grad=True)).sum().backward()
    finally:
        handle.remove()
    assert {module.norm2, module.mlp[0], module.attn.qkv, module.attn.proj} <= heard


def test_transforms_take_the_modules(monkeypatch):
    module = make_block('full')
    x = torch.randn(3, 4, 4, DIM, dtype=torch.float64)
    grads = torch.func.vmap(torch.func.grad(lambda one: module(one[None]).sum()))(x)
    monkeypatch.setattr(block, 'is_lean', lambda *_: False)
    monkeypatch.setattr(depthwise, 'is_lean', lambda *_: False)
    expected = x.clone().requires_grad_()
    module(expected).sum().backward()
    torch.testing.assert_close(grads, expected.grad, rtol=0, atol=1e-11)


def test_a_compiled_part_runs():
    module, x = make_block(), torch.randn(1, 4, 4, DIM, dtype=torch.float64)
    assert module._is_lean(x)
    module.attn.compile(backend='eager')
    assert not module._is_lean(x)


def test_parameters_of_another_dtype_take_the_modules():
    module, x = make_block(dtype=torch.bfloat16), torch.rand(1, 4, 4, DIM, dtype=torch.bfloat16)
    assert module._is_lean(x)
    module.norm1.float()
    assert not module._is_lean(x)


def test_autocast_takes_the_modules():
    x = torch.rand(1, 4, 4, DIM)
    module = make_block(dtype=torch.float32)
    assert module._is_lean(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not module._is_lean(x)
    assert not module._is_lean(x.to('meta'))
