"""Depthwise convolutions in C++ against PyTorch's in float64."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmbiformer.cpp import depthwise_conv as cpp
from mmbiformer.cpp.compiler import FOLDER

CHANNELS = 48
# One token, less than a kernel, one column more and one less than those computed together.
SIZES = [(1, 1), (2, 7), (5, 1), (9, 8), (13, 19), (3, 70)]
CASES = [(kernel, size) for kernel in cpp.KERNELS for size in SIZES]
DTYPES = pytest.mark.parametrize('dtype', cpp.DTYPES)
NAMES = 'output', *(f'gradient of {x}' for x in ('x', 'weight', 'bias', 'added', 'token'))


def in_pytorch(x, weight, bias, added, padding) -> Tensor:
    """What is to come out, in the dtype of x."""
    height, width = x.shape[1:3]
    if padding is not None:
        token, padded_height, padded_width = padding
        size = padded_height, padded_width
        row, column = (torch.arange(y) for y in size)
        is_real = ((row < height)[:, None] & (column < width))[..., None]
        x = F.pad(x, (0, 0, 0, size[1] - width, 0, size[0] - height))
        x = torch.where(is_real, x, token)
    reach = weight.shape[-1] // 2
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=reach, groups=len(weight))
    out = out.permute(0, 2, 3, 1)[:, :height, :width]
    return out if added is None else out + added


def compute(function, dtype, x, weight, bias, added, token, padded_by, grad) -> dict[str, Tensor]:
    """The output, and the gradients of what there is."""
    given = [
        y if y is None else y.to(dtype).detach().requires_grad_()
        for y in (x, weight, bias, added, token)
    ]
    if added is x:
        given[3] = given[0]
    *operands, token = given
    padding = None
    if token is not None:
        sizes = (size + by for size, by in zip(x.shape[1:3], padded_by, strict=True))
        padding = cpp.Padding(token, *sizes)
    out = function(*operands, padding)
    there = [y for y in given if y is not None]
    grads = torch.autograd.grad(out, there, grad.to(dtype))
    names = [name for name, y in zip(NAMES[1:], given, strict=True) if y is not None]
    return {'output': out.detach(), **dict(zip(names, grads, strict=True))}


def check(
    x,
    weight,
    bias=None,
    added=None,
    token=None,
    padded_by=(0, 0),
    dtype=torch.float32,
) -> None:
    """Errors are at most twice those of PyTorch, or a few roundings in float32."""
    is_residual = added is x
    x, weight, bias, added, token = (
        y if y is None else y.to(dtype) for y in (x, weight, bias, added, token)
    )
    added = x if is_residual else added
    arguments = x, weight, bias, added, token, padded_by, randn(*x.shape).to(dtype)
    truth = compute(in_pytorch, torch.float64, *arguments)
    plain = compute(in_pytorch, dtype, *arguments)
    found = compute(cpp.depthwise_conv, dtype, *arguments)
    assert found.keys() == truth.keys()
    for name, true in truth.items():
        error, allowed = ((y[name] - true).abs().max().item() for y in (found, plain))
        floor = 4 * torch.finfo(torch.float32).eps * true.abs().max().item()
        assert error <= 2 * allowed + floor, name


def randn(*shape: int) -> Tensor:
    return torch.randn(shape)


@pytest.mark.parametrize(('kernel', 'size'), CASES)
@DTYPES
def test_output_and_gradients(kernel, size, dtype):
    torch.manual_seed(0)
    x, added = randn(2, *size, CHANNELS), randn(2, *size, CHANNELS)
    check(x, randn(CHANNELS, 1, kernel, kernel), randn(CHANNELS), added, dtype=dtype)


@pytest.mark.parametrize(('kernel', 'size'), CASES)
@pytest.mark.parametrize('padded_by', [(3, 0), (0, 1), (2, 9)])
@DTYPES
def test_padding(kernel, size, padded_by, dtype):
    torch.manual_seed(0)
    x, added = randn(2, *size, CHANNELS), randn(2, *size, CHANNELS)
    token = randn(CHANNELS)
    check(x, randn(CHANNELS, 1, kernel, kernel), randn(CHANNELS), added, token, padded_by, dtype)


def test_alone_and_without_bias():
    torch.manual_seed(0)
    check(randn(1, 9, 11, CHANNELS), randn(CHANNELS, 1, 5, 5))


@DTYPES
def test_a_residual(dtype):
    """The map itself is added; its two gradients are one."""
    torch.manual_seed(0)
    x = randn(1, 9, 11, CHANNELS)
    check(x, randn(CHANNELS, 1, 3, 3), added=x, dtype=dtype)


@DTYPES
def test_the_result_is_written_over_what_is_added(dtype):
    torch.manual_seed(0)
    x, added = (randn(2, 9, 11, CHANNELS).to(dtype) for _ in range(2))
    arguments = x, randn(CHANNELS, 1, 5, 5), randn(CHANNELS), added
    padding = cpp.Padding(randn(CHANNELS).to(dtype), 10, 12)
    expected = cpp.depthwise_conv(*arguments, padding)
    assert cpp.depthwise_conv(*arguments, padding, out=added) is added
    assert torch.equal(added, expected)


def test_maps_of_other_layouts():
    """A part of a packed projection, images last but one, and channels that lie apart."""
    torch.manual_seed(0)
    weight, bias = randn(CHANNELS, 1, 5, 5), randn(CHANNELS)
    layouts = {
        'packed': randn(2, 9, 11, 3 * CHANNELS)[..., CHANNELS : 2 * CHANNELS],
        'rows apart': randn(9, 2, 11, CHANNELS).transpose(0, 1),
        'channels apart': randn(2, CHANNELS, 9, 11).permute(0, 2, 3, 1),
    }
    for x in layouts.values():
        expected = cpp.depthwise_conv(x.contiguous(), weight, bias)
        assert torch.equal(cpp.depthwise_conv(x, weight, bias), expected)
        assert torch.equal(cpp.depthwise_conv(x, weight, bias, x), expected + x)


@pytest.mark.parametrize('threads', [2, 5, 16])
def test_threads_make_no_difference_but_rounding(threads):
    torch.manual_seed(0)
    x, grad = randn(2, 2, 9, 11, CHANNELS)
    weight = randn(CHANNELS, 1, 5, 5).requires_grad_()

    def run() -> list[Tensor]:
        out = cpp.depthwise_conv(x, weight, None)
        return [out, *torch.autograd.grad(out, weight, grad)]

    expected, before = run(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results, again = run(), run()
    finally:
        torch.set_num_threads(before)
    for result, repeated, truth in zip(results, again, expected, strict=True):
        assert torch.equal(result, repeated)
        torch.testing.assert_close(result, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_stays_so(value):
    x = randn(1, 9, 11, CHANNELS)
    x[0, 4, 5, 6] = value
    out = cpp.depthwise_conv(x, torch.ones(CHANNELS, 1, 3, 3), None)
    assert (~out.isfinite()).nonzero().tolist() == [
        [0, y, column, 6] for y in (3, 4, 5) for column in (4, 5, 6)
    ]


PROBLEMS = {
    'dtype': (
        (torch.float16, 16, 3),
        'dtype torch.float16 is neither torch.float32 nor torch.bfloat16',
    ),
    'channels': ((torch.float32, 24, 3), '24 channels are no multiple of 16'),
    'kernel': ((torch.float32, 16, 11), 'kernel size 11 is none of (3, 5, 7, 9)'),
}


@pytest.mark.parametrize(('given', 'said'), PROBLEMS.values(), ids=PROBLEMS)
def test_what_it_does_not_compute(given, said):
    dtype, channels, kernel = given
    weight = torch.rand(channels, 1, kernel, kernel, dtype=dtype)
    assert cpp.problem(torch.rand(1, 4, 4, channels).to(dtype), weight) == said


def test_what_is_compiled_wrong_is_not_taken(anew):
    anew.change('depthwise_conv.cpp', 'sum[j] += grad[i - j] * x;', 'sum[j] += grad[i - j];')
    said = cpp.problem(randn(1, 4, 4, 16), randn(16, 1, 3, 3))
    assert said.startswith('what was compiled for this CPU is wrong: the gradient of the weight')
    assert not anew.libraries()


def test_without_a_compiler(anew, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    said = cpp.problem(randn(1, 4, 4, 16), randn(16, 1, 3, 3))
    assert said.startswith('there is no C++ compiler')


def test_structures_are_those_of_the_source():
    """Which a compiler compares with this number."""
    check = f'static_assert(sizeof(Padded<float>) == {ctypes.sizeof(cpp._Padded)});'
    assert check in (FOLDER / 'depthwise_conv.cpp').read_text()
