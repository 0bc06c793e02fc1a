"""When the fused path of a block is taken: never where a module is not what it seems."""

import logging

import pytest
import torch
from fused_blocks import DIM, is_fused, make_block, plain, results, unfuse
from torch import nn

from mmbiformer.layers import (
    BiLevelRoutingAttention,
    fused_checks,
)


@pytest.mark.parametrize('part', ['norm2', 'mlp', 'mlp.fc1', 'attn', 'attn.qkv', 'attn.lce'])
def test_a_hook_on_a_part_is_called(part):
    module, seen = make_block(), []
    module.get_submodule(part).register_forward_hook(lambda *args: seen.append(args))
    module(torch.randn(1, 4, 4, DIM, dtype=torch.float64))
    assert len(seen) == 1


def test_a_hook_on_the_block_leaves_it_fused():
    module, seen = make_block(), []
    module.register_forward_hook(lambda *args: seen.append(args))
    x = torch.randn(1, 4, 4, DIM, dtype=torch.float64)
    assert is_fused(module, x)
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


class _Tripled(BiLevelRoutingAttention):
    def forward(self, x):
        return 3 * super().forward(x)


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
    'class': lambda m: setattr(m.mlp.fc2, '__class__', _Twice),
    'forward': lambda m: setattr(
        m.norm2, 'forward', lambda x: 2 * nn.LayerNorm.forward(m.norm2, x)
    ),
    'activation': lambda m: setattr(m.mlp, 'act', nn.ReLU()),
    'tanh': lambda m: setattr(m.mlp, 'act', nn.GELU('tanh')),
    'dropout': lambda m: setattr(m.mlp, 'act', nn.Sequential(nn.GELU(), nn.Dropout(0.5))),
    'norm': lambda m: setattr(m, 'norm2', nn.RMSNorm(DIM)),
    'norm without weights': lambda m: setattr(m, 'norm1', nn.LayerNorm(DIM, bias=False)),
    'no bias': lambda m: setattr(m.mlp.fc2, 'bias', None),
    'no drop path': lambda m: setattr(m, 'drop_path', nn.Identity()),
    'parametrised': lambda m: nn.utils.parametrizations.weight_norm(m.attn.proj),
    'mlp': lambda m: setattr(m, 'mlp', _Doubled(m.mlp)),
    'linear in the place of the activation': lambda m: setattr(
        m.mlp, 'act', nn.Linear(3 * DIM, 3 * DIM)
    ),
    'attention': lambda m: setattr(m, 'attn', _Wrapper(m.attn)),
    'attention with a forward of its own': lambda m: setattr(m.attn, '__class__', _Tripled),
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
    assert {module.norm2, module.mlp.fc1, module.attn.qkv, module.attn.proj} <= heard


def test_transforms_take_the_modules(monkeypatch):
    module = make_block('full')
    x = torch.randn(3, 4, 4, DIM, dtype=torch.float64)
    grads = torch.func.vmap(torch.func.grad(lambda one: module(one[None]).sum()))(x)
    unfuse(monkeypatch)
    expected = x.clone().requires_grad_()
    module(expected).sum().backward()
    torch.testing.assert_close(grads, expected.grad, rtol=0, atol=1e-11)


def test_a_compiled_part_runs():
    module, x = make_block(), torch.randn(1, 4, 4, DIM, dtype=torch.float64)
    assert is_fused(module, x)
    module.attn.compile(backend='eager')
    assert not is_fused(module, x)


def test_parameters_of_another_dtype_take_the_modules():
    module, x = make_block(dtype=torch.bfloat16), torch.rand(1, 4, 4, DIM, dtype=torch.bfloat16)
    assert is_fused(module, x)
    module.norm1.float()
    assert not is_fused(module, x)


def test_other_autocast_takes_the_modules():
    x = torch.rand(1, 4, 4, DIM)
    module = make_block(dtype=torch.float32)
    assert is_fused(module, x)
    with torch.autocast('cpu', torch.float16):
        assert not is_fused(module, x)
    assert not is_fused(module, x.to('meta'))


def test_the_log_says_once_why_a_block_is_not_fused(caplog):
    fused_checks.log_unfused.cache_clear()
    x = torch.rand(1, 4, 4, DIM)
    module = make_block(dtype=torch.float32)
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        module(x)
        module.mlp.fc1.register_forward_hook(lambda *args: None)
        for _ in range(2):
            module(x)
        module.mlp.act = nn.ReLU()
        module.mlp.fc1 = nn.Linear(DIM, 3 * DIM)
        module(x)
        with torch.autocast('cpu', torch.float16):
            module(x)
        module.to('meta')(x.to('meta'))  # where nobody expects it
    lines = [x.getMessage() for x in caplog.records if 'Block' in x.getMessage()]
    assert lines == [
        f'BiFormerBlock runs without its fused path for CPUs: {why}'
        for why in (
            'mlp has a fc1 that has hooks',
            'mlp has a act that is a torch.nn.modules.activation.ReLU',
            'autocast is on, and not in bfloat16',
        )
    ]
