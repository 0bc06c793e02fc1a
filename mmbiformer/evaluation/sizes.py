"""Ranges of object size: COCO's own three, and any others.

The size of an object is its area: the mask's where the annotation has one, as COCO's ``area``. A
range is stated by area, by side length (the side of the square of that area), or by either one
relative to the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter, sqrt

import numpy as np

MEASURES = ('side', 'area', 'relative_side', 'relative_area')


@dataclass(frozen=True)
class SizeRange:
    """Objects from ``low`` to below ``high``; to ``high`` itself where it is inclusive.

    Attributes:
        name (str): What tables and metrics call it.
        low, high (float): As fractions of the image's area where relative, else in pixels of area.
        relative (bool): Whether the size is taken relative to the image.
        inclusive (bool): Whether ``high`` belongs to it, as in COCO's own ranges.
    """

    name: str
    low: float
    high: float
    relative: bool = False
    inclusive: bool = False

    @property
    def closed(self) -> tuple[float, float]:
        """The same range of floats with both bounds in it, as COCO's evaluation takes it."""
        return self.low, self.high if self.inclusive else nextafter(self.high, -inf)

    def holds(self, sizes: np.ndarray) -> np.ndarray:
        """Which sizes, in the range's own measure, lie in it."""
        low, high = self.closed
        return (sizes >= low) & (sizes <= high)

    @property
    def is_coco(self) -> bool:
        """Whether it is one of COCO's own."""
        return self in COCO_RANGES

    @property
    def sides(self) -> tuple[float, float | None]:
        """Bounds as side lengths; None where it has no end, as for COCO's large objects.

        In pixels; in percent of the side of the square as large as the image where relative.
        """
        unit = 100 if self.relative else 1
        has_end = self.high < (COCO_RANGES[0].high if self.is_coco else inf)
        return unit * sqrt(self.low), unit * sqrt(self.high) if has_end else None

    @property
    def label(self) -> str:
        """The name, and the sides where it does not say them."""
        low, high = self.sides
        unit, decimals = ('%', 2) if self.relative else ('', 1)
        begin = f'{round(low, decimals):g}'
        sides = f'{begin}{unit}+' if high is None else f'{begin}-{round(high, decimals):g}{unit}'
        if self.name in (sides, COCO_RANGES[0].name):
            return self.name
        return f'{self.name} ({sides}{" of side" if unit else " px"})'


# pycocotools, cocoeval.Params: an object of 32 x 32 pixels is small and medium.
COCO_RANGES = (
    SizeRange('all', 0, 1e5**2, inclusive=True),
    SizeRange('small', 0, 32**2, inclusive=True),
    SizeRange('medium', 32**2, 96**2, inclusive=True),
    SizeRange('large', 96**2, 1e5**2, inclusive=True),
)


def size_ranges(
    measure: str = 'side', ranges: Mapping[str, Sequence[float]] | None = None
) -> tuple[SizeRange, ...]:
    """Build half-open ranges.

    Args:
        measure (str): 'side' or 'area', in pixels, or 'relative_side' or 'relative_area', as a
            fraction: of the side of the square as large as the image, or of the image.
        ranges (Mapping, optional): name -> (low, high), high not included; ``inf`` for no end.
            They may overlap. Defaults to octaves.

    Raises:
        ValueError: If the measure is unknown or a range is none.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure '{measure}' is unknown: choose from {', '.join(MEASURES)}")
    by_side, relative = measure.endswith('side'), measure.startswith('relative')
    if ranges is None:
        ranges = _octaves(by_side, relative)
    if not ranges:
        raise ValueError('no size ranges given: name at least one, or leave them out for octaves')
    taken = {x.name for x in COCO_RANGES}
    built = []
    for name, bounds in ranges.items():
        if name in taken:
            raise ValueError(f"size range '{name}' has the name of one of COCO's own: rename it")
        try:
            low, high = (float(x) for x in bounds)
        except (TypeError, ValueError):
            low = high = float('nan')
        if not 0 <= low < high:  # true of nan
            raise ValueError(
                f"size range '{name}' is {bounds!r}: give (low, high) with 0 <= low < high"
            )
        if by_side:
            low, high = _square(low), _square(high)
        built.append(SizeRange(name, low, high, relative))
    return tuple(built)


def _square(side: float) -> float:
    """The square of a bound as it is written: of 0.4 it is 0.16, which 0.4**2 is not quite."""
    return inf if side == inf else float(Fraction(repr(side)) ** 2)


def _octaves(by_side: bool, relative: bool) -> dict[str, tuple[float, float]]:
    """name -> bounds; all but the first and the last end at twice the side where they begin."""
    first, num_sides, factor, unit = (0.01, 6, 100, '%') if relative else (8.0, 7, 1, '')
    sides = [first * 2**i for i in range(num_sides)]
    bounds = [0.0, *(x if by_side else x**2 for x in sides)]
    ranges = {
        f'{factor * low:g}-{factor * high:g}{unit}': (low, high) for low, high in pairwise(bounds)
    }
    return {**ranges, f'{factor * bounds[-1]:g}{unit}+': (bounds[-1], inf)}
