"""Scores as reports show them: in points, 0 to 100, 'n/a' where there is none."""

from collections.abc import Sequence

from mmbiformer.tables import MISSING


def points(value: float | None, signed: bool = False, decimals: int = 1) -> str:
    """A fraction of 1 in points."""
    if value is None:
        return MISSING
    rounded = round(100 * value, decimals) + 0.0  # no minus before zero
    return f'{rounded:{"+" if signed else ""}.{decimals}f}'


def interval_points(
    bounds: Sequence[float | None], signed: bool = False, decimals: int = 1
) -> str:
    """Both bounds in points, in brackets."""
    if None in bounds:
        return MISSING
    return f'[{", ".join(points(x, signed, decimals) for x in bounds)}]'


def with_interval(row: dict, score: str, signed: bool = False, decimals: int = 1) -> str:
    """A score of a row in points and, where its ``intervals`` have it, its interval."""
    text, bounds = points(row[score], signed, decimals), row.get('intervals', {}).get(score)
    if row[score] is None or bounds is None:
        return text
    shown = interval_points(bounds, signed, decimals)
    return f'{text} {f"[{MISSING}]" if shown == MISSING else shown}'


def excludes_zero(bounds: Sequence[float | None]) -> bool:
    """Whether all of an interval lies on one side of 0."""
    return None not in bounds and (bounds[0] > 0 or bounds[1] < 0)
