"""Splitting a feature map into S x S regions, and back.

Shape letters: B batch, H and W height and width of the map, S partition factor, R = S * S regions,
T tokens per region, C channels. A map whose sides S does not divide is padded on the right and at
the bottom, as the paper's released models were trained.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .exportable import is_exporting


def region_size(height: int, width: int, partition_factor: int) -> tuple[int, int]:
    """Height and width of one region, in tokens, after padding: ceil(H / S), ceil(W / S)."""
    return -(-height // partition_factor), -(-width // partition_factor)


class Partition(NamedTuple):
    """A batch of maps of one size, cut into S x S regions."""

    batch: int
    height: int
    width: int
    partition_factor: int

    @property
    def region(self) -> tuple[int, int]:
        """Height and width of a region: h, w."""
        return region_size(self.height, self.width, self.partition_factor)

    @property
    def tokens(self) -> int:
        """T = h * w."""
        h, w = self.region
        return h * w

    @property
    def num_regions(self) -> int:
        """R, those of padding alone included."""
        return self.partition_factor**2

    @property
    def is_padded(self) -> bool:
        return self.height * self.width != self.num_regions * self.tokens


def bands(length: int, size: int) -> Iterator[tuple[slice, slice, int]]:
    """Where whole regions lie along an axis of a map, and then the partial one.

    Args:
        length (int): Number of tokens along the axis.
        size (int): Tokens of a region along it.

    Yields:
        tuple: Slice of tokens, slice of the regions they form, tokens of each of these regions.
    """
    whole, rest = divmod(length, size)
    if whole:
        yield slice(0, whole * size), slice(0, whole), size
    if rest:
        yield slice(whole * size, length), slice(whole, whole + 1), rest


def pad_bottom_right(x: Tensor, bottom: int, right: int, fill: Tensor | None = None) -> Tensor:
    """Add rows at the bottom and columns on the right of a map.

    Args:
        x (Tensor): Map of shape (B, H, W, C).
        bottom (int): Number of rows to add.
        right (int): Number of columns to add.
        fill (Tensor, optional): The token to fill them with, (C, ). Zeros where not given.

    Returns:
        Tensor: (B, H + bottom, W + right, C); ``x`` itself where nothing is added.
    """
    if is_exporting():
        return _pad_any(x, bottom, right, fill)
    if not bottom and not right:
        return x
    if fill is None:
        return F.pad(x, (0, 0, 0, right, 0, bottom))
    batch, height, width, channels = x.shape
    fill = fill.to(x.dtype)
    if right:
        x = torch.cat([x, fill.expand(batch, height, right, channels)], dim=2)
    if bottom:
        x = torch.cat([x, fill.expand(batch, bottom, width + right, channels)], dim=1)
    return x


def _pad_any(x: Tensor, bottom: int, right: int, fill: Tensor | None) -> Tensor:
    """As :func:`pad_bottom_right`, without asking how much: a program would be bound to that."""
    height, width = x.shape[1:3]
    row = torch.arange(height + bottom, device=x.device)
    column = torch.arange(width + right, device=x.device)
    real = (row < height).view(-1, 1, 1) & (column < width).view(-1, 1)
    x = x.index_select(1, row.clamp(max=height - 1)).index_select(2, column.clamp(max=width - 1))
    return torch.where(real, x, 0 if fill is None else fill.to(x.dtype))


def pad_to_regions(x: Tensor, partition_factor: int, fill: Tensor | None = None) -> Tensor:
    """Pad a map (B, H, W, C) until S divides both of its sides; see :func:`pad_bottom_right`."""
    height, width = x.shape[1:3]
    h, w = region_size(height, width, partition_factor)
    bottom, right = h * partition_factor - height, w * partition_factor - width
    return pad_bottom_right(x, bottom, right, fill)


def to_regions(x: Tensor, partition_factor: int) -> Tensor:
    """Regroup a padded map (B, S * h, S * w, C) into regions (B, R, T, C), both row by row."""
    s = partition_factor
    x = x.unflatten(1, (s, x.shape[1] // s)).unflatten(3, (s, x.shape[2] // s))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_regions(x: Tensor, height: int, width: int, partition_factor: int) -> Tensor:
    """Undo :func:`to_regions` and crop the padding: (B, R, T, C) to (B, H, W, C)."""
    s = partition_factor
    h, w = region_size(height, width, s)
    x = x.unflatten(2, (h, w)).unflatten(1, (s, s)).transpose(2, 3)
    return crop(x.flatten(3, 4).flatten(1, 2), height, width)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left part of a map (B, H, W, C)."""
    if is_exporting():  # a view has gaps or not, and a program would be bound to that
        row = torch.arange(height, device=x.device)
        return x.index_select(1, row).index_select(2, torch.arange(width, device=x.device))
    return x[:, :height, :width]


def region_sums(x: Tensor, partition_factor: int, dtype: torch.dtype) -> Tensor:
    """Sum of the real tokens of each region of a map (B, H, W, C): (B, R, C) in ``dtype``."""
    s, (batch, height, width, channels) = partition_factor, x.shape
    h, w = region_size(height, width, s)
    sums = x.new_zeros(batch, s, s, channels, dtype=dtype)
    for ys, row, tokens_high in bands(height, h):
        for xs, column, tokens_wide in bands(width, w):
            part = x[:, ys, xs].unflatten(1, (-1, tokens_high)).unflatten(3, (-1, tokens_wide))
            # One axis after the other: PyTorch sums over both at once a good deal slower.
            sums[:, row, column] = part.sum(4, dtype=dtype).sum(2)
    return sums.flatten(1, 2)


def real_tokens(
    height: int, width: int, partition_factor: int, device: torch.device | None = None
) -> Tensor:
    """Which tokens of which region are not padding: a bool mask of shape (R, T)."""
    h, w = region_size(height, width, partition_factor)
    row = torch.arange(partition_factor * h, device=device)
    column = torch.arange(partition_factor * w, device=device)
    real = (row < height).unsqueeze(1) & (column < width)
    return to_regions(real[None, :, :, None], partition_factor)[0, :, :, 0]
