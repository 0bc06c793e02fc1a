"""Cutting a map into S x S regions: sizes, and tokens region by region.

Shape letters: B batch, H and W height and width of the map, S partition factor, R = S * S regions,
T tokens per region, C channels. A map whose height or width S does not divide is padded at
the bottom or on the right, as the paper's released models were trained.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


def region_size(height: int, width: int, partition_factor: int) -> tuple[int, int]:
    """Height and width of one region, in tokens, after padding: ceil(H / S), ceil(W / S)."""
    # Not -(-H // S): ONNX divides integers towards zero, so that would be rounded down there.
    s = partition_factor
    return (height + s - 1) // s, (width + s - 1) // s


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
    def real_shape(self) -> tuple[int, int]:
        """In how many rows and columns the regions with real tokens lie; at most S each."""
        h, w = self.region
        return -(-self.height // h), -(-self.width // w)

    @property
    def is_padded(self) -> bool:
        """Whether any region holds padding."""
        s = self.partition_factor
        return self.height % s > 0 or self.width % s > 0


def bands(length: int, size: int) -> Iterator[tuple[slice, slice, int]]:
    """Where whole regions of ``size`` tokens lie along an axis, and then the partial one.

    Yields:
        tuple: Slice of tokens, slice of the regions they form, tokens of each of these regions.
    """
    whole, rest = divmod(length, size)
    if whole:
        yield slice(0, whole * size), slice(0, whole), size
    if rest:
        yield slice(whole * size, length), slice(whole, whole + 1), rest


def to_regions(x: Tensor, partition_factor: int) -> Tensor:
    """Regroup a padded map (B, S * h, S * w, C) into regions (B, R, T, C), both row by row."""
    s = partition_factor
    x = x.unflatten(1, (s, x.shape[1] // s)).unflatten(3, (s, x.shape[2] // s))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def real_tokens(
    height: int, width: int, partition_factor: int, device: torch.device | None = None
) -> Tensor:
    """Which tokens of which region are not padding: a bool mask of shape (R, T)."""
    h, w = region_size(height, width, partition_factor)
    row = torch.arange(partition_factor * h, device=device)
    column = torch.arange(partition_factor * w, device=device)
    real = (row < height).unsqueeze(1) & (column < width)
    return to_regions(real[None, :, :, None], partition_factor)[0, :, :, 0]
