"""GELU in C++ against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F

from mmbiformer.cpp import gelu

# Where the polynomial ends and beyond, and some between.
VALUES = torch.cat(
    [torch.linspace(-9, 9, 4001), torch.tensor([-1e30, -100, -5.6, -1e-30, 0, 5.6, 100, 1e30])]
)
DTYPES = pytest.mark.parametrize('dtype', gelu.ALLOWED, ids=str)


def make_rows(dtype: torch.dtype) -> torch.Tensor:
    return F.pad(VALUES, (0, -len(VALUES) % 48)).view(-1, 48).to(dtype)


@DTYPES
def test_is_at_least_as_exact_as_pytorch(dtype):
    x = make_rows(dtype)
    truth = F.gelu(x.double())
    out = gelu.add_gelu(x.clone(), None, torch.empty_like(x))
    assert (out - truth).norm() <= 1.001 * (F.gelu(x) - truth).norm()
    is_small = x.abs() < 10
    error = ((out - truth) / x)[is_small & (x != 0)].abs().max()
    assert error < (2e-7 if dtype == torch.float32 else 4e-3)


@DTYPES
def test_gradient(dtype):
    x = make_rows(dtype).clamp(-20, 20)
    true_x = x.double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(x.shape, generator=generator).to(dtype)
    truth = F.gelu(true_x)
    (true_grad,) = torch.autograd.grad(truth, true_x, grad.double())
    theirs = x.clone().requires_grad_()
    (their_grad,) = torch.autograd.grad(F.gelu(theirs), theirs, grad)
    out = gelu.differentiate_gelu(x, grad)
    assert torch.equal(out, gelu.add_gelu(x.clone(), None, torch.empty_like(x)))
    assert (grad - true_grad).norm() <= 1.001 * (their_grad - true_grad).norm()


@DTYPES
@pytest.mark.parametrize('is_in_place', [True, False])
def test_a_bias_is_added(dtype, is_in_place):
    x, bias = torch.randn(7, 32).to(dtype), torch.randn(32).to(dtype)
    given, out = x.clone(), x.clone()
    result = gelu.add_gelu(given, bias, given if is_in_place else out)
    assert result is (given if is_in_place else out)
    torch.testing.assert_close(result, F.gelu(x.double() + bias).to(dtype))
    assert torch.equal(given, result if is_in_place else x + bias)


@DTYPES
def test_what_is_not_a_number_stays_so(dtype):
    x = torch.zeros(1, 16, dtype=dtype)
    x[0, 3], grad = float('nan'), torch.ones(1, 16, dtype=dtype)
    out = gelu.differentiate_gelu(x, grad)
    for result in (out, grad, gelu.add_gelu(x, None, torch.empty_like(x))):
        assert torch.equal(result.isnan(), x.isnan())


def test_what_it_does_not_compute():
    assert gelu.problem(torch.zeros(2, 8)) == '8 channels are no multiple of 16'
    assert 'dtype torch.float64' in gelu.problem(torch.zeros(2, 16).double())
    assert gelu.problem(torch.zeros(2, 16, device='meta')) == 'it is for CPUs, not meta'
    assert gelu.problem(torch.zeros(2, 16)) is None


@pytest.mark.parametrize(
    ('right', 'wrong', 'found'),
    [
        ('.398942280f', '.4f', 'gradient'),
        ('1.71736663e-3f', '1.8e-3f', 'output'),
        ('load(at) + load(bias + i) :', 'load(at) :', 'sum'),
    ],
)
def test_what_is_compiled_wrong_is_not_taken(anew, right, wrong, found):
    anew.change('gelu.cpp', right, wrong)
    said = gelu.problem(torch.zeros(2, 16))
    assert said.startswith('what was compiled for this CPU is wrong: GELU in torch.float32')
    assert f'its {found} is off' in said


def test_without_a_compiler(anew, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert gelu.problem(torch.zeros(2, 16)).startswith('there is no C++ compiler')
