"""Region-to-region routing: which regions each region attends to (paper, section 3.2)."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .any_size import is_exporting, region_sums
from .regions import real_tokens, region_size


class Routing(NamedTuple):
    """Which regions each region attends to, and why.

    Attributes:
        indices (Tensor): int64 region numbers, (B, R, K), in no particular order.
        affinity (Tensor): How well each region's mean key answers to each region's mean query,
            (B, R, R), queries first, without the softmax scale; -inf for a region of masked
            padding alone.
    """

    indices: Tensor
    affinity: Tensor


def region_means(x: Tensor, partition_factor: int, pad: Tensor | None = None) -> Tensor:
    """Mean token of each region of a map (B, H, W, C): (B, R, C), in float32 or wider.

    Where the padding token, ``pad`` of shape (C, ), is given, padding counts in the mean; else
    only real tokens do, and a region of padding alone has mean 0.
    """
    height, width = x.shape[1:3]
    dtype = torch.promote_types(x.dtype, torch.float32)
    sums = region_sums(x, partition_factor, dtype)
    num_real = real_tokens(height, width, partition_factor, x.device).sum(1).unsqueeze(1)
    if pad is None:
        return sums / num_real.clamp(min=1)
    h, w = region_size(height, width, partition_factor)
    return (sums + (h * w - num_real) * pad.to(dtype)) / (h * w)


def route(
    q: Tensor,
    k: Tensor,
    topk: int,
    partition_factor: int,
    pad_query: Tensor | None = None,
    pad_key: Tensor | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    differentiable: bool = False,
) -> Routing:
    """Choose the ``topk`` regions whose mean key answers best to a region's mean query.

    Computed in float32 or wider whatever autocast or TF32 say: a rounded affinity would send a
    whole region elsewhere. The softmax scale is left out, as it is positive and cannot change the
    order.

    Args:
        q, k (Tensor): Queries and keys, (B, H, W, C).
        topk (int): K, the number of regions to keep, 1 to S * S.
        partition_factor (int): S.
        pad_query, pad_key (Tensor, optional): Query and key of a padding token, (C, ). Without
            them padding takes no part: means are over real tokens, and a region of padding alone
            is chosen last.
        embed (Callable, optional): Applied to the mean queries and to the mean keys, (B, R, C).
        differentiable (bool): Whether affinities have gradients; the choice has none.

    Raises:
        ValueError: If ``topk`` is out of range or only one pad vector is given.
    """
    if not 1 <= topk <= partition_factor**2:
        raise ValueError(
            f'topk={topk} must be from 1 to the {partition_factor**2} regions of '
            f'partition_factor={partition_factor}'
        )
    if (pad_query is None) != (pad_key is None):
        raise ValueError('pad_query and pad_key go together: give both or none')
    if not differentiable:
        q, k, pad_query, pad_key = (
            x if x is None else x.detach() for x in (q, k, pad_query, pad_key)
        )
    has_autocast = torch.amp.is_autocast_available(q.device.type)  # not so on the meta device
    with torch.autocast(q.device.type, enabled=False) if has_autocast else nullcontext():
        query = region_means(q, partition_factor, pad_query)
        key = region_means(k, partition_factor, pad_key)
        if embed is not None:
            query, key = embed(query), embed(key)
        if q.device.type in ('cpu', 'cuda') and not is_exporting():
            # ``allow_tf32`` and ``torch.set_float32_matmul_precision`` let PyTorch round factors
            # of float32 products, to TF32 or bfloat16; products in float64 they leave alone.
            query, key = query.double(), key.double()
        affinity = query @ key.transpose(1, 2)
        if pad_key is None:
            real = real_tokens(q.shape[1], q.shape[2], partition_factor, q.device).any(1)
            affinity = affinity.masked_fill(~real, float('-inf'))
        return Routing(affinity.topk(topk, dim=-1, sorted=False).indices, affinity)


def routing_indices(
    q: Tensor,
    k: Tensor,
    topk: int,
    partition_factor: int,
    pad_query: Tensor | None = None,
    pad_key: Tensor | None = None,
) -> Tensor:
    """The indices of :func:`route`, (B, R, topk)."""
    return route(q, k, topk, partition_factor, pad_query, pad_key).indices
