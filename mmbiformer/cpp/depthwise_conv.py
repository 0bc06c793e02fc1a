"""Depthwise convolutions in C++: with 5 x 5 kernels, training is up to seven times as fast.

They read and write maps (B, H, W, C) in float32 or bfloat16 as they are, strided ones too, compute
in float32, and add what is to be added on the way. Padding at the bottom and right, all of whose
tokens are alike, is computed with and not written.
"""

import ctypes
from functools import cache
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .calls import DTYPES, LANES, Map, call, pointer, side_by_side, tensor_problem
from .compiler import find_fault

KERNELS = 3, 5, 7, 9
# How far a result may be off, as a share of its largest value.
ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


class Padding(NamedTuple):
    """Tokens (C, ) at the bottom and right of a map, up to a height and width."""

    token: Tensor
    height: int
    width: int


class _Padded(ctypes.Structure):
    """The structure of this name in ``depthwise_conv.cpp``."""

    _fields_ = [
        ('map', Map),
        *((x, ctypes.c_int64) for x in ('height', 'width', 'padded_height', 'padded_width')),
        ('pad', ctypes.c_void_p),
    ]

    @classmethod
    def of(cls, x: Tensor, padding: Padding | None = None) -> '_Padded':
        size = x.shape[1:3]
        if padding is None:
            return cls(Map.of(x), *size, *size, None)
        return cls(Map.of(x), *size, padding.height, padding.width, pointer(padding.token))


def problem(x: Tensor, weight: Tensor) -> str | None:
    """Why it cannot run on a map (B, H, W, C) and a weight (C, 1, k, k), None where it can."""
    if found := tensor_problem(x) or tensor_problem(weight):
        return found
    if weight.shape[-1] not in KERNELS:
        return f'kernel size {weight.shape[-1]} is none of {KERNELS}'
    if len(weight) % LANES:
        return f'{len(weight)} channels are no multiple of {LANES}'
    return fault()


@cache
def fault() -> str | None:
    """Why nothing can be computed: no library, or a wrong one; None where there is none."""
    return find_fault(_find_fault)


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    added: Tensor | None = None,
    padding: Padding | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``added`` + the convolution of a map, (B, H, W, C).

    Args:
        x (Tensor): Map (B, H, W, C), in float32 or bfloat16. So is the result.
        weight (Tensor): (C, 1, k, k).
        bias (Tensor, optional): (C, ).
        added (Tensor, optional): Map (B, H, W, C) of the dtype of x. It may be x unless that is
            padded.
        padding (Padding, optional): What x is padded with; beyond it are zeros.
        out (Tensor, optional): Where the result goes if no gradient is recorded; may be ``added``.
    """
    if out is not None:
        padding = padding and padding._replace(token=padding.token.float())
        _convolve(x, padding, weight, bias, added, out)
        return out
    token = None if padding is None else padding.token
    size = None if padding is None else padding[1:]
    return _DepthwiseConv.apply(x, weight, bias, added, token, size)


class _DepthwiseConv(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, added, token, size):
        padding = None if token is None else Padding(token.float(), *size)
        ctx.save_for_backward(x, weight, token)
        ctx.size, ctx.is_residual = size, added is x
        ctx.bias_dtype = None if bias is None else bias.dtype
        out = x.new_empty(x.shape)
        _convolve(x, padding, weight, bias, added, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, token = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_added, needs_token, _ = ctx.needs_input_grad
        padding = None if token is None else Padding(token.float(), *ctx.size)
        grad_x = grad_weight = grad_bias = grad_token = None
        if needs_x or needs_token:
            residual = grad if ctx.is_residual else None
            grad_x, grad_token = map_grads(x, padding, grad, weight, residual)
        if needs_weight or needs_bias:
            grad_weight, grad_bias = weight_grads(x, padding, grad, weight)
        grad_bias = grad_bias.to(ctx.bias_dtype) if needs_bias else None
        grad_added = grad if needs_added and not ctx.is_residual else None
        if needs_token:
            grad_token = grad_token.to(token.dtype)
        return grad_x, grad_weight, grad_bias, grad_added, grad_token, None


def _convolve(
    x: Tensor,
    padding: Padding | None,
    weight: Tensor,
    bias: Tensor | None,
    added: Tensor | None,
    out: Tensor,
) -> None:
    x = side_by_side(x)
    added = None if added is None else side_by_side(added)
    kernel, weight = weight.shape[-1], weight.flatten(1).t().float().contiguous()  # (k * k, C)
    bias = None if bias is None else bias.float().contiguous()
    call(
        'convolve',
        x.dtype,
        *(kernel, _Padded.of(x, padding), weight, bias),
        *(None if added is None else Map.of(added), Map.of(out), *out.shape),
    )


def map_grads(
    x: Tensor, padding: Padding | None, grad: Tensor, weight: Tensor, added: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the map, to which ``added`` is added, and of each token of its padding."""
    height, width = x.shape[1:3]
    bottom = right = 0
    if padding is not None:  # what the kernel reaches of it lies beside the map
        reach = weight.shape[-1] // 2
        bottom, right = (
            min(padded - size, reach)
            for padded, size in zip(padding[1:], (height, width), strict=True)
        )
    grads = x.new_empty(len(x), height + bottom, width + right, x.shape[3])
    _convolve(grad, None, weight.flip(2, 3), None, added, grads)
    if padding is None:
        return grads, None
    rest = grads[:, height:], grads[:, :height, width:]
    grad_token = sum(y.sum((0, 1, 2), dtype=torch.float64) for y in rest)
    return grads[:, :height, :width], grad_token


def weight_grads(
    x: Tensor, padding: Padding | None, grad: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the weight and the bias."""
    x, grad = side_by_side(x), side_by_side(grad)
    kernel, channels = weight.shape[-1], len(weight)
    shape = torch.get_num_threads(), kernel**2 + 1, channels
    totals = x.new_zeros(shape, dtype=torch.float32)
    maps = _Padded.of(x, padding), _Padded.of(grad)
    call('differentiate', x.dtype, kernel, *maps, len(x), channels, totals)
    of_weight = totals[:, :-1].sum(0).t().contiguous()
    return of_weight.view(weight.shape).to(weight.dtype), totals[:, -1].sum(0)


def _find_fault() -> str | None:
    """Compare with PyTorch in float64; say which result is how far off."""
    generator = torch.Generator().manual_seed(0)
    for kernel, dtype in product(KERNELS, DTYPES):

        def randn(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

        channels, (height, width) = 3 * LANES, (7, 2 * kernel + 9)
        given = dict(
            map=randn(2, height, width, channels),
            weight=randn(channels, 1, kernel, kernel),
            bias=randn(channels),
            added=randn(2, height, width, channels),
            padding=randn(channels),
        )
        x, weight, bias, added, token = given.values()
        is_padding = F.pad(torch.zeros(height, width), (0, 3, 0, 5), value=1).unsqueeze(2)
        padded = F.pad(x.double(), (0, 0, 0, 3, 0, 5)) + is_padding * token.double()
        truth = (
            F.conv2d(
                padded.permute(0, 3, 1, 2),
                weight.double(),
                bias.double(),
                padding=kernel // 2,
                groups=channels,
            ).permute(0, 2, 3, 1)[:, :height, :width]
            + added.double()
        )
        out = depthwise_conv(x, weight, bias, added, Padding(token, height + 5, width + 3))
        grad = randn(*out.shape).detach()
        results = out, *torch.autograd.grad(out, list(given.values()), grad)
        truths = truth, *torch.autograd.grad(truth, list(given.values()), grad.double())
        names = 'output', *(f'gradient of the {name}' for name in given)
        for name, result, true in zip(names, results, truths, strict=True):
            error, largest = (result - true).abs().max().item(), true.abs().max().item()
            if not error <= ALLOWED[dtype] * largest:
                at = f'with a kernel of {kernel} x {kernel}, {dtype}'
                return f'the {name} is off by {error:.2g}, {at}'
    return None
