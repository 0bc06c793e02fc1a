"""Scores as tables show them, in points, 0 to 100; and cells that all CSV files share."""

from collections.abc import Sequence

from mmbiformer.tables import MISSING

from .report_data import Score
from .sizes import SizeRange


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


def with_interval(score: Score, signed: bool = False, decimals: int = 1) -> str:
    """A score in points and, where one was asked for, its interval."""
    text = points(score.value, signed, decimals)
    if score.value is None or score.interval is None:
        return text
    shown = interval_points(score.interval, signed, decimals)
    return f'{text} {f"[{MISSING}]" if shown == MISSING else shown}'


def range_cells(size: SizeRange) -> dict:
    """Areas are in pixels or, where relative, fractions of the image's."""
    return dict(range=size.name, relative=size.relative, area_low=size.low, area_high=size.high)


def score_cells(scores: dict[str, Score], end: str = '') -> dict:
    """Scores and their intervals, in the :func:`score_columns` of their names with this end."""
    cells = {}
    for name, score in scores.items():
        values = score.value, *(score.interval or ('', ''))
        cells.update(zip(score_columns(name + end), values, strict=True))
    return cells


def score_columns(column: str) -> tuple[str, str, str]:
    """Columns of a score, and of the ends of its interval."""
    return column, f'{column}_low', f'{column}_high'
