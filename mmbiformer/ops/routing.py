"""Region-to-region routing: which regions each region attends to (paper, section 3.2)."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .any_size import is_exporting, is_on_cpu, is_recorded, region_averages
from .regions import real_tokens


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


class Shares(NamedTuple):
    """What the means of regions depend on beside the map, for all maps of a size.

    Attributes:
        padding (Tensor): Padding tokens of a region, as a share of its tokens, (R, 1).
        to_real (Tensor): Tokens of a region over those that are real, (R, 1); 0 where none is.
        bias (Tensor): -inf for a region of padding alone, else 0, (R, ).
    """

    padding: Tensor
    to_real: Tensor
    bias: Tensor


def _shares(
    height: int, width: int, partition_factor: int, dtype: torch.dtype, device: torch.device
) -> Shares:
    real = real_tokens(height, width, partition_factor, device).to(dtype).mean(1)
    is_empty = real == 0
    to_real = real.reciprocal().masked_fill(is_empty, 0)
    bias = torch.zeros_like(real).masked_fill(is_empty, float('-inf'))
    return Shares((1 - real).unsqueeze(1), to_real.unsqueeze(1), bias)


_kept_shares = functools.cache(_shares)  # some kB a size; a CUDA graph may hold its address


def shares(x: Tensor, partition_factor: int) -> Shares:
    """The shares of a map (..., H, W, C), in float64 where its device and programs have it.

    To compute them takes more launches on a GPU than the rest of routing, so they are kept.
    """
    is_wide = x.device.type in ('cpu', 'cuda', 'meta') and not is_exporting()
    dtype = torch.float64 if is_wide else torch.promote_types(x.dtype, torch.float32)
    size = *x.shape[-3:-1], partition_factor, dtype, x.device
    if is_recorded() or type(x) is not Tensor:  # what is made then is gone with the program
        return _shares(*size)
    with torch.inference_mode(False):  # a later training may save them
        return _kept_shares(*size)


def region_means(x: Tensor, partition_factor: int, pad: Tensor | None = None) -> Tensor:
    """Mean token of each region of maps (..., H, W, C): (..., R, C), summed in float32 or wider.

    Where the padding token, ``pad`` of shape (..., C), is given, padding counts in the mean; else
    only real tokens do, and a region of padding alone has mean 0. In the dtype of :func:`shares`.
    """
    padding, to_real, _ = shares(x, partition_factor)
    dtype = torch.promote_types(x.dtype, torch.float32)
    averages = region_averages(x.flatten(0, -4), partition_factor, dtype)
    averages = averages.unflatten(0, x.shape[:-3])
    if pad is None:
        return averages * to_real
    return torch.addcmul(averages, padding, pad.unsqueeze(-2))


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
        query, key = _means_of_both(q, k, partition_factor, pad_query, pad_key)
        if embed is not None:
            query, key = embed(query), embed(key)
        # ``allow_tf32`` and ``torch.set_float32_matmul_precision`` let PyTorch round factors of
        # float32 products, to TF32 or bfloat16; products in float64 they leave alone.
        if pad_key is None:
            affinity = torch.baddbmm(shares(q, partition_factor).bias, query, key.transpose(1, 2))
        else:
            affinity = query @ key.transpose(1, 2)
        return Routing(affinity.topk(topk, dim=-1, sorted=False).indices, affinity)


def _means_of_both(
    q: Tensor, k: Tensor, partition_factor: int, pad_query: Tensor | None, pad_key: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Means of queries and of keys; on GPUs at once, since launches cost more than copies."""
    if is_on_cpu(q) or q.shape != k.shape:
        return tuple(
            region_means(x, partition_factor, pad) for x, pad in ((q, pad_query), (k, pad_key))
        )
    pads = None if pad_query is None else torch.stack([pad_query, pad_key]).unsqueeze(1)
    return region_means(torch.stack([q, k]), partition_factor, pads).unbind()


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
