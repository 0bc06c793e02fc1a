"""The depthwise convolution and its gradients against PyTorch's."""

import logging

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

from mmbiformer.layers import depthwise
from mmbiformer.layers.depthwise import depthwise_conv
from mmbiformer.layers.fused_checks import log_unfused


@pytest.fixture(autouse=True)
def _no_map_is_small(monkeypatch):
    monkeypatch.setattr(depthwise, 'SMALL_MAP', 0)


@pytest.mark.parametrize('small_map', [0, 10**6], ids=['own gradients', "PyTorch's gradients"])
@pytest.mark.parametrize('kernel_size', [3, 5, 7])
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (2, 7), (5, 1), (9, 6), (40, 600)])
def test_output_and_gradients(monkeypatch, height, width, kernel_size, small_map):
    monkeypatch.setattr(depthwise, 'SMALL_MAP', small_map)
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel_size, padding=kernel_size // 2, groups=6).double()
    # A slice of a wider map, as the values are of a packed projection.
    x = torch.randn(2, height, width, 9, dtype=torch.float64)[..., 3:].requires_grad_()
    variables = [x, conv.weight, conv.bias]

    out = depthwise_conv(conv, x)
    expected = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
    grad_out = torch.randn_like(out)
    for grad, truth in zip(
        torch.autograd.grad(out, variables, grad_out),
        torch.autograd.grad(expected, variables, grad_out),
        strict=True,
    ):
        torch.testing.assert_close(grad, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize('small_map', [0, 10**6], ids=['own gradients', "PyTorch's gradients"])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no bias'])
def test_operator_of_compilers(monkeypatch, small_map, bias):
    monkeypatch.setattr(depthwise, 'SMALL_MAP', small_map)
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=bias).double()
    x = torch.randn(2, 9, 6, 9, dtype=torch.float64)[..., 3:].requires_grad_()
    opcheck(torch.ops.mmbiformer.depthwise_conv.default, (x, conv.weight, conv.bias))
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(depthwise_conv, backend=counter, fullgraph=True, dynamic=True)
    for y in (x, x[:, :4, :3], torch.randn(3, 40, 30, 6, dtype=torch.float64, requires_grad=True)):
        variables, results = [y, *conv.parameters()], []
        for function in (compiled, depthwise_conv):
            out = function(conv, y)
            results.append((out, *torch.autograd.grad(out.square().sum(), variables)))
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-11)
    names = [node.name for graph in counter.graphs for node in graph.graph.nodes]
    assert any('depthwise_conv' in name for name in names)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_operator_of_compilers_is_in_cpp(monkeypatch, dtype):
    conv = nn.Conv2d(32, 32, 5, padding=2, groups=32).to(dtype)
    x = torch.randn(2, 9, 6, 48).to(dtype)[..., 16:].requires_grad_()
    operator = torch.ops.mmbiformer.depthwise_conv.default
    opcheck(operator, (x, conv.weight, conv.bias))
    opcheck(operator, (x, conv.weight.detach(), conv.bias.detach()))  # two are not wanted
    results = []
    for function in (
        lambda x: operator(x, conv.weight, conv.bias),
        lambda x: depthwise_conv(conv, x),
    ):
        for wanted in ([x, *conv.parameters()], [x], [conv.weight], [conv.bias]):
            out = function(x)
            results += [out, *torch.autograd.grad(out, wanted, torch.ones_like(out))]
    for result, expected in zip(
        results[: len(results) // 2], results[len(results) // 2 :], strict=True
    ):
        assert torch.equal(result, expected)
    monkeypatch.setattr(depthwise, 'F', None)  # nothing of PyTorch's is called
    monkeypatch.setattr(depthwise, '_convolution_backward', None)
    operator(x, conv.weight, conv.bias).sum().backward()


@pytest.mark.parametrize('changed', ['hooked', 'strided', 'a subclass'])
def test_compilers_run_what_is_no_plain_convolution(changed):
    conv = nn.Conv2d(6, 6, 5, padding=2, groups=6, stride=1 + (changed == 'strided'))
    if changed == 'hooked':
        conv.register_forward_hook(lambda module, args, out: out + 1)
    if changed == 'a subclass':
        conv.__class__ = type('Doubled', (nn.Conv2d,), {'forward': lambda self, x: x * 2})
    x = torch.randn(2, 9, 6, 6)
    torch._dynamo.reset()
    compiled = torch.compile(depthwise_conv, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(conv, x), depthwise_conv(conv, x))


def test_error_of_the_weight_gradient_is_at_most_that_of_pytorchs_3x3():
    # PyTorch sums a 3x3 gradient over all places in float32, a 5x5 one in smaller parts.
    torch.manual_seed(0)
    x, grad_out = torch.randn(2, 1, 40, 56, 32)

    def relative_error(apply, size: int) -> float:
        grads = []
        for dtype in (torch.float32, torch.float64):
            conv = nn.Conv2d(32, 32, size, padding=size // 2, groups=32, dtype=dtype)
            out = apply(conv, x.to(dtype))
            grads.append(torch.autograd.grad(out, conv.weight, grad_out.to(dtype))[0])
        return ((grads[0] - grads[1]).norm() / grads[1].norm()).item()

    def plain(conv, x):
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    assert 0 < relative_error(depthwise_conv, 5) <= relative_error(plain, 3)


def test_small_maps_have_pytorchs_gradients(monkeypatch):
    conv = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    monkeypatch.setattr(depthwise, 'SMALL_MAP', 36)
    taken, operator = [], depthwise._convolve
    monkeypatch.setattr(
        depthwise, '_convolve', lambda x, *args: taken.append(x) or operator(x, *args)
    )
    for width in (3, 4):
        depthwise_conv(conv, torch.rand(1, 3, width, 4))
    assert [x.shape[2] for x in taken] == [4]


def test_rows_and_columns_of_the_kernel_that_never_meet_a_small_map_are_left_out(monkeypatch):
    conv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    monkeypatch.setattr(depthwise, 'SMALL_MAP', 36)
    taken = []
    monkeypatch.setattr(
        depthwise.F,
        'conv2d',
        lambda x, weight, *_, **options: taken.append((weight.shape[2:], options['padding'])) or x,
    )
    depthwise_conv(conv, torch.rand(1, 3, 1, 4))
    assert taken == [((5, 1), [2, 0])]


def test_a_hook_on_the_convolution_is_called_and_the_log_says_what_that_costs(caplog):
    log_unfused.cache_clear()
    conv = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    seen = []
    conv.register_forward_hook(lambda *args: seen.append(args))
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        depthwise_conv(conv, torch.rand(1, 3, 3, 4))
    assert len(seen) == 1
    assert [record.getMessage() for record in caplog.records] == [
        'a depthwise convolution runs without its fused path for CPUs: it has hooks'
    ]
