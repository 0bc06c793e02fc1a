"""Maps as rows of regions, one head after the other: the layout the chunked backend works in.

A map (B, H, W, C) becomes rows (N, M, T, D), where the M = B * rows * columns regions are those
with at least one real token. Keys and values have P rows more, (N, M + P, T, D): they stand for
all regions of padding alone. Within one head, a region's tokens lie side by side: batched
products run at their full rate on them, which they do not on tokens that are C apart. Only partial
regions hold any other padding.

Shape letters: B batch, H and W height and width of the map, S partition factor, N heads, D
channels of a head, C = N * D, T = h * w tokens per region, M and P as above, K routed regions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .regions import Partition, bands

# Regions of padding alone are alike, and one row could stand for all. But its gradient would be a
# long sum, of all that route there one after the other, and rounded as often.
PADDING_ROWS = 32


class Grid(Partition):
    """The regions of a map that hold real tokens."""

    @property
    def counts(self) -> tuple[int, int]:
        """Number of rows and of columns of regions with real tokens; at most S each."""
        h, w = self.region
        return -(-self.height // h), -(-self.width // w)

    @property
    def num_rows(self) -> int:
        """M."""
        rows, columns = self.counts
        return self.batch * rows * columns

    @property
    def num_key_rows(self) -> int:
        """M + P; P is 0 where every region holds a real token."""
        rows, columns = self.counts
        return self.num_rows + (PADDING_ROWS if rows * columns < self.num_regions else 0)

    def as_regions(self, rows: Tensor) -> Tensor:
        """View rows (N, M or M + P, T, D) as (N, B, rows, columns, h, w, D): the first M."""
        num_heads, dim = rows.shape[0], rows.shape[-1]
        shape = num_heads, self.batch, *self.counts, *self.region, dim
        return rows[:, : self.num_rows].view(shape)

    def blocks(self, x: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of views of equal shape that cover a map (B, H, W, C) and its rows.

        One pair covers the whole regions, up to three the partial ones at the bottom and right.
        """
        regions = self.as_regions(rows).permute(1, 2, 4, 3, 5, 0, 6)  # (B, rows, h, cols, w, N, D)
        h, w = self.region
        for ys, row, height in bands(self.height, h):
            for xs, column, width in bands(self.width, w):
                part = regions[:, row, :height, column, :width]
                yield x[:, ys, xs].view(part.shape), part

    def padding(self, rows: Tensor) -> list[Tensor]:
        """Views of all padding, disjoint: of partial regions, and the rows from M on.

        Each (N, ..., D).
        """
        h, w = self.region
        num_rows, num_columns = self.counts
        bottom, right = self.height - (num_rows - 1) * h, self.width - (num_columns - 1) * w
        regions = self.as_regions(rows)
        views = [rows[:, self.num_rows :]]
        if bottom < h:
            views.append(regions[:, :, -1, :, bottom:])
        if right < w:
            views.append(regions[:, :, :-1, -1, :, right:])
            views.append(regions[:, :, -1, -1, :bottom, right:])
        return views

    def routed_rows(self, indices: Tensor, num_heads: int) -> Tensor:
        """Row numbers, in rows flattened to (N * (M + P), T, D), that each region attends to.

        Args:
            indices (Tensor): int64 region numbers, (B, S * S, K).

        Returns:
            Tensor: int64, (N * M, K).
        """
        s = self.partition_factor
        num_rows, num_columns = self.counts
        device = indices.device
        image = torch.arange(self.batch, device=device).view(-1, 1, 1)
        if num_rows == num_columns == s:
            row = indices + image * s**2
        else:
            indices = indices.unflatten(1, (s, s))[:, :num_rows, :num_columns].flatten(1, 2)
            i, j = indices // s, indices % s
            row = (image * num_rows + i) * num_columns + j
            region = torch.arange(self.num_rows, device=device).view(*row.shape[:2], 1)
            in_turn = region + torch.arange(row.shape[-1], device=device)  # whatever K is
            is_real = (i < num_rows) & (j < num_columns)
            row = row.where(is_real, self.num_rows + in_turn % PADDING_ROWS)
        head = torch.arange(num_heads, device=device).view(-1, 1, 1) * self.num_key_rows
        return (row.flatten(0, 1) + head).flatten(0, 1)


def to_rows(
    x: Tensor,
    grid: Grid,
    num_heads: int,
    num_rows: int,
    pad: Tensor | None = None,
    scale: float = 1,
) -> Tensor:
    """Regroup a map (B, H, W, C), multiplied by ``scale``, into rows (N, num_rows, T, D).

    ``num_rows`` is M or M + P. Padding holds ``pad`` (C, ), or zeros where not given.
    """
    rows = x.new_empty(num_heads, num_rows, grid.tokens, x.shape[-1] // num_heads)
    for tokens, row_tokens in grid.blocks(x, rows):
        torch.mul(tokens, scale, out=row_tokens)
    for view in grid.padding(rows):
        if pad is None:
            view.zero_()
        else:
            view.copy_(pad.view(num_heads, *[1] * (view.ndim - 2), -1).expand_as(view))
    return rows


def from_rows(rows: Tensor, grid: Grid, scale: float = 1) -> Tensor:
    """Undo :func:`to_rows`: rows (N, ..., T, D), multiplied by ``scale``, to (B, H, W, C)."""
    channels = rows.shape[0] * rows.shape[-1]
    x = rows.new_empty(grid.batch, grid.height, grid.width, channels)
    for tokens, row_tokens in grid.blocks(x, rows):
        torch.mul(row_tokens, scale, out=tokens)
    return x


def sum_padding(rows: Tensor, grid: Grid) -> Tensor:
    """Sum over all padding of rows (N, M + P, T, D): (C, ), in float32 or wider."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    sums = [view.flatten(1, -2).sum(1, dtype=dtype) for view in grid.padding(rows)]
    return torch.stack(sums).sum(0).flatten()


def padding_bias(grid: Grid, like: Tensor) -> Tensor:
    """What to add to the logits of each key: 0, and -inf where it is padding; (M + P, T)."""
    bias = like.new_zeros(1, grid.num_key_rows, grid.tokens, 1)
    for view in grid.padding(bias):
        view.fill_(float('-inf'))
    return bias[0, ..., 0]
