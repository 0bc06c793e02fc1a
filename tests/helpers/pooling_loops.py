"""Poolings of a region in plain loops, written from their definitions alone.

Each takes a region (h, w, C) and gives a list of pooled tokens (C, ), row by row.
"""

from collections.abc import Callable, Iterator

import numpy as np

Kernels = list[tuple[int, int]]


def _kernels(rows: Kernels, columns: Kernels) -> Iterator[tuple[slice, slice]]:
    for top, bottom in rows:
        for left, right in columns:
            yield slice(top, bottom), slice(left, right)


def _pool(region: np.ndarray, along: Callable, reduce: Callable) -> list[np.ndarray]:
    height, width, _ = region.shape
    return [
        reduce(region[kernel].reshape(-1, region.shape[2]))
        for kernel in _kernels(along(height), along(width))
    ]


def adaptive(region: np.ndarray, side: int, reduce: Callable) -> list[np.ndarray]:
    def along(length: int) -> Kernels:
        return [(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]

    return _pool(region, along, reduce)


def strided(region: np.ndarray, ratio: int, reduce: Callable) -> list[np.ndarray]:
    def along(length: int) -> Kernels:
        kernel = min(ratio, length)
        return [(i * kernel, (i + 1) * kernel) for i in range(length // kernel)]

    return _pool(region, along, reduce)


def fractional(region: np.ndarray, side: int, draw: float) -> list[np.ndarray]:
    """Graham's pseudorandom sequence; the last kernel ends with the region."""

    def along(length: int) -> Kernels:
        number = min(side, length)
        kernel = -(-length // number)
        step = (length - kernel) / (number - 1) if number > 1 else 0
        begins = [int((i + draw) * step) - int(draw * step) for i in range(number - 1)]
        return [(begin, begin + kernel) for begin in [*begins, length - kernel]]

    return _pool(region, along, lambda tokens: tokens.max(axis=0))


def learned(region: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """Weights (C, r, r) and bias (C, ): one sum for each r x r tokens."""
    ratio = weight.shape[1]
    height, width, channels = region.shape
    padded = np.zeros((max(height, ratio), max(width, ratio), channels))
    padded[:height, :width] = region
    return [
        bias
        + sum(
            weight[:, dy, dx] * padded[row * ratio + dy, column * ratio + dx]
            for dy in range(ratio)
            for dx in range(ratio)
        )
        for row in range(len(padded) // ratio)
        for column in range(padded.shape[1] // ratio)
    ]
