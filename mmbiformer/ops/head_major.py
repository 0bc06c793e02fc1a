"""Head-major maps: the layout that the chunked backend works in.

A map (B, H, W, C) becomes (N, M, T, D): for one head after the other, all M regions of the batch
that hold at least one real token, and of each region its T tokens. Keys and values have P regions
more, (N, M + P, T, D), which stand for all regions of padding alone. Within a head, a region's
tokens so lie side by side: batched products run at their full rate on them, which they do not on
tokens that are C channels apart. Only partial regions hold any other padding.

Shape letters: B batch, H and W height and width of the map, S partition factor, N heads, D
channels of a head, C = N * D, h and w height and width of a region, T = h * w its tokens, M and P
as above, K routed regions.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from .regions import Partition, bands

# Regions of padding alone are alike, and one could stand for all of them. But its gradient would
# be one long sum over all that route there, and would be rounded as often.
PADDING_REGIONS = 32


def num_query_regions(partition: Partition) -> int:
    """M: the regions of all maps of the batch that hold real tokens."""
    return partition.batch * prod(partition.real_shape)


def num_key_regions(partition: Partition) -> int:
    """M + P; P is 0 where every region holds a real token."""
    has_padding_regions = min(partition.real_shape) < partition.partition_factor
    return num_query_regions(partition) + (PADDING_REGIONS if has_padding_regions else 0)


def to_head_major(
    x: Tensor,
    partition: Partition,
    num_heads: int,
    num_regions: int,
    pad: Tensor | None = None,
    scale: float = 1,
) -> Tensor:
    """Regroup a map (B, H, W, C), multiplied by ``scale``, to (N, num_regions, T, D).

    ``num_regions`` is M or M + P. Padding holds ``pad`` (C, ), or zeros where not given.
    """
    regions = x.new_empty(num_heads, num_regions, partition.tokens, x.shape[-1] // num_heads)
    for tokens, region_tokens in _matching_blocks(x, regions, partition):
        torch.mul(tokens, scale, out=region_tokens)
    for padding in _padding_views(regions, partition):
        if pad is None:
            padding.zero_()
        else:
            padding.copy_(pad.view(num_heads, *[1] * (padding.ndim - 2), -1))
    return regions


def from_head_major(regions: Tensor, partition: Partition, scale: float = 1) -> Tensor:
    """Undo :func:`to_head_major`: (N, M or M + P, T, D), times ``scale``, to (B, H, W, C)."""
    channels = regions.shape[0] * regions.shape[-1]
    x = regions.new_empty(partition.batch, partition.height, partition.width, channels)
    for tokens, region_tokens in _matching_blocks(x, regions, partition):
        torch.mul(region_tokens, scale, out=tokens)
    return x


def real_regions(lists: Tensor, queries: Partition) -> Tensor:
    """View what each region has, (B, S * S, K), of regions with queries: (B, rows, columns, K)."""
    s, (num_rows, num_columns) = queries.partition_factor, queries.real_shape
    return lists.unflatten(1, (s, s))[:, :num_rows, :num_columns]


def routed_regions(indices: Tensor, queries: Partition, keys: Partition, num_heads: int) -> Tensor:
    """Number the regions that each region attends to as in a head-major map of keys.

    ``indices``, (B, S * S, K), become numbers within (N * (M + P), T, D), (N * M, K).
    """
    s = keys.partition_factor
    num_rows, num_columns = keys.real_shape
    device = indices.device
    image = torch.arange(keys.batch, device=device).view(-1, 1, 1)
    indices = real_regions(indices, queries).flatten(1, 2)
    if num_rows == num_columns == s:
        number = indices + image * s**2
    else:
        row, column = indices // s, indices % s
        number = (image * num_rows + row) * num_columns + column
        # Each listed region of padding becomes one of the P in turn, so that none of these
        # collects a long sum.
        begin = torch.arange(num_query_regions(queries), device=device)
        begin = begin.view(*number.shape[:2], 1)
        turn = begin + torch.arange(number.shape[-1], device=device)
        is_real = (row < num_rows) & (column < num_columns)
        number = number.where(is_real, num_query_regions(keys) + turn % PADDING_REGIONS)
    head = torch.arange(num_heads, device=device).view(-1, 1, 1) * num_key_regions(keys)
    return (number.flatten(0, 1) + head).flatten(0, 1)


def sum_padding(regions: Tensor, partition: Partition) -> Tensor:
    """Sum over all padding of (N, M + P, T, D), taken in float32 or wider: (C, )."""
    dtype = torch.promote_types(regions.dtype, torch.float32)
    views = _padding_views(regions, partition)
    sums = [view.flatten(1, -2).sum(1, dtype=dtype) for view in views]
    return torch.stack(sums).sum(0).flatten().to(regions.dtype)


def padding_bias(partition: Partition, like: Tensor) -> Tensor:
    """What to add to the logits of each key: 0, and -inf where it is padding; (M + P, T)."""
    bias = like.new_zeros(1, num_key_regions(partition), partition.tokens, 1)
    for view in _padding_views(bias, partition):
        view.fill_(float('-inf'))
    return bias[0, ..., 0]


def _real_regions(regions: Tensor, partition: Partition) -> Tensor:
    """View (N, M or M + P, T, D) as (N, B, rows, columns, h, w, D): the first M regions."""
    num_heads, dim = regions.shape[0], regions.shape[-1]
    shape = num_heads, partition.batch, *partition.real_shape, *partition.region, dim
    return regions[:, : num_query_regions(partition)].view(shape)


def _matching_blocks(
    x: Tensor, regions: Tensor, partition: Partition
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of views of equal shape that cover a map (B, H, W, C) and its regions.

    One pair covers the whole regions, up to three the partial ones at the bottom and right.
    """
    # (B, rows, h, columns, w, N, D)
    regions = _real_regions(regions, partition).permute(1, 2, 4, 3, 5, 0, 6)
    h, w = partition.region
    for ys, row, height in bands(partition.height, h):
        for xs, column, width in bands(partition.width, w):
            part = regions[:, row, :height, column, :width]
            yield x[:, ys, xs].view(part.shape), part


def _padding_views(regions: Tensor, partition: Partition) -> list[Tensor]:
    """Views of all padding, disjoint: of partial regions, and the regions from M on.

    Each is (N, ..., D).
    """
    h, w = partition.region
    num_rows, num_columns = partition.real_shape
    # Real rows of the lowest regions, and real columns of those on the right.
    bottom = partition.height - (num_rows - 1) * h
    right = partition.width - (num_columns - 1) * w
    views = [regions[:, num_query_regions(partition) :]]
    regions = _real_regions(regions, partition)
    if bottom < h:
        views.append(regions[:, :, -1, :, bottom:])
    if right < w:
        views.append(regions[:, :, :-1, -1, :, right:])
        views.append(regions[:, :, -1, -1, :bottom, right:])
    return views
