"""Products of a map's tokens with the 7 x 7 tokens around each, with little memory.

Copies of every neighbourhood would be 49 maps, and autograd would keep them. So these are
operators with gradients of their own, which are again such products, and FLOP counters know them.
Maps are (B, H, W, N, D), with N heads of D channels; numbers of neighbours are (B, H, W, N, 49),
row by row. Beyond the map there are zeros.
"""

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

SIDE = 7
REACH = SIDE // 2
_PADDING = 0, 0, 0, 0, REACH, REACH, REACH, REACH


@torch.library.custom_op('mmbiformer::neighbour_products', mutates_args=())
def products(q: Tensor, k: Tensor) -> Tensor:
    """Scalar product of each token's query and each of its neighbours' keys."""
    out = q.new_empty(*q.shape[:-1], SIDE**2)
    for i, near in _shifts(F.pad(k, _PADDING), q):
        torch.sum(q * near, dim=-1, out=out[..., i])
    return out


@torch.library.custom_op('mmbiformer::neighbour_sums', mutates_args=())
def sums(weights: Tensor, v: Tensor) -> Tensor:
    """Sum of each token's neighbours' values, weighted."""
    out = v.new_zeros(v.shape, dtype=_wide(v))
    for i, near in _shifts(F.pad(v, _PADDING), v):
        out += weights[..., i, None] * near
    return out.to(v.dtype)


@torch.library.custom_op('mmbiformer::neighbour_shares', mutates_args=())
def shares(weights: Tensor, q: Tensor) -> Tensor:
    """Sum of what each token gives to its neighbours: its query, weighted for each of them."""
    total = F.pad(q.new_zeros(q.shape, dtype=_wide(q)), _PADDING)
    for i, near in _shifts(total, q):
        near += weights[..., i, None] * q
    height, width = q.shape[1:3]
    total = total[:, REACH : REACH + height, REACH : REACH + width]
    return total.to(q.dtype, memory_format=torch.contiguous_format, copy=True)


def _shifts(padded: Tensor, like: Tensor) -> Iterator[tuple[int, Tensor]]:
    """For each number of a neighbour the view of a padded map in which tokens lie so far off."""
    height, width = like.shape[1:3]
    for i, (row, column) in enumerate(product(range(SIDE), repeat=2)):
        yield i, padded[:, row : row + height, column : column + width]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


@products.register_fake
def _(q, k):
    return q.new_empty(*q.shape[:-1], SIDE**2)


@sums.register_fake
@shares.register_fake
def _(weights, x):
    return x.new_empty(x.shape)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _products_backward(ctx, grad):
    q, k = ctx.saved_tensors
    return sums(grad, k), shares(grad, q)


def _sums_backward(ctx, grad):
    weights, v = ctx.saved_tensors
    return products(grad, v), shares(weights, grad)


products.register_autograd(_products_backward, setup_context=_keep)
sums.register_autograd(_sums_backward, setup_context=_keep)


@register_flop_formula(
    [
        torch.ops.mmbiformer.neighbour_products,
        torch.ops.mmbiformer.neighbour_sums,
        torch.ops.mmbiformer.neighbour_shares,
    ]
)
def _flops(first_shape, map_shape, *args, **kwargs) -> int:
    return 2 * SIDE**2 * prod(map_shape)
