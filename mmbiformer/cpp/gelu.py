"""GELU in C++, with the bias of the linear map before it: half the error in less time."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .calls import LANES, call, tensor_problem
from .compiler import find_fault

# How far a result may be off, as a share of its largest value.
ALLOWED = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


def problem(x: Tensor) -> str | None:
    """Why it cannot run on a matrix, None where it can."""
    if found := tensor_problem(x):
        return found
    if x.shape[1] % LANES:
        return f'{x.shape[1]} channels are no multiple of {LANES}'
    return fault()


@cache
def fault() -> str | None:
    """Why nothing can be computed: no library, or a wrong one; None where there is none."""
    return find_fault(_find_fault)


def add_gelu(x: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Add a bias (C, ) to rows (L, C); write GELU of them to ``out``, which may be ``x``."""
    bias = None if bias is None else bias.float().contiguous()
    call('add_gelu', x.dtype, x, bias, out, *x.shape)
    return out


def differentiate_gelu(x: Tensor, grad: Tensor) -> Tensor:
    """GELU of rows (L, C); ``grad`` becomes its gradient times what it was."""
    out = torch.empty_like(x)
    call('differentiate_gelu', x.dtype, x, grad, out, x.numel())
    return out


def _find_fault() -> str | None:
    """Compare with PyTorch in float64; say which result is how far off."""
    generator = torch.Generator().manual_seed(0)
    for dtype, allowed in ALLOWED.items():
        x, grad = (torch.randn(50, 5 * LANES, generator=generator).to(dtype) for _ in range(2))
        bias = torch.randn(5 * LANES, generator=generator).to(dtype)
        given = x.double() * 3
        x = given.to(dtype)
        out = add_gelu(x, bias, torch.empty_like(x))
        true = (given + bias).requires_grad_()
        truth = F.gelu(true)
        (true_grad,) = torch.autograd.grad(truth, true, grad.double())
        again = differentiate_gelu(x, grad)
        compared = {
            'sum': (x, true),
            'output': (out, truth),
            'output for the gradient': (again, truth),
            'gradient': (grad, true_grad),
        }
        for name, (result, true) in compared.items():
            error, largest = (result - true).abs().max().item(), true.abs().max().item()
            if not error <= allowed * largest:
                return f'GELU in {dtype}: its {name} is off by {error:.2g}'
    return None
