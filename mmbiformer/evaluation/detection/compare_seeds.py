"""Reports of the same models trained with several seeds, put together.

The intervals of a single report are over images. Those here are over trainings: Student's t over
the seeds, on the same validation images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t as student

from mmbiformer.tables import MISSING, csv_text, format_table

from ..formatting import interval_points, points, range_cells
from ..report_data import DetectionReport, Difference, Score, SizeRow
from ..resampling import CONFIDENCE

WIDEST = 9  # columns of the table: of up to four models with their differences


@dataclass(frozen=True, kw_only=True)
class Spread(Score):
    """Mean AP in one range over the seeds, with its interval over them, None of one seed alone.

    ``values`` are of each seed; where one has no AP there is no mean. ``deviation`` is that of a
    sample, None where there is no interval.
    """

    values: list[float | None]
    deviation: float | None


@dataclass(frozen=True)
class SeedsComparison:
    """AP of all models, and then differences; these alone have another one's name in ``minus``."""

    seeds: list[int]
    num_objects: list[int]
    rows: list[Difference]


def compare_seeds(reports: dict[int, DetectionReport]) -> SeedsComparison:
    """Mean AP, and mean difference to the first model, over seeds.

    Args:
        reports (dict): seed -> what :func:`size_report` returned, of the same ground truth, ranges
            and models.
    """
    first, *_ = reports.values()
    rows = [
        Difference(x.name, '', _spreads([y.models[i].sizes for y in reports.values()]))
        for i, x in enumerate(first.models)
    ]
    rows += [
        Difference(x.model, x.minus, _spreads([y.differences[i].sizes for y in reports.values()]))
        for i, x in enumerate(first.differences)
    ]
    num_objects = [row.counts['num_objects'] for row in first.models[0].sizes]
    return SeedsComparison(list(reports), num_objects, rows)


def _spreads(by_seed: Sequence[Sequence[SizeRow]]) -> list[SizeRow]:
    """A row for each range."""
    return [
        SizeRow(rows[0].size, dict(AP=_spread([row.scores['AP'].value for row in rows])))
        for rows in zip(*by_seed, strict=True)
    ]


def _spread(values: list[float | None]) -> Spread:
    mean = None if None in values else float(np.mean(values))
    if mean is None or len(values) == 1:
        return Spread(mean, (None, None), values=values, deviation=None)
    deviation = float(np.std(values, ddof=1))
    reach = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    reach *= deviation / sqrt(len(values))
    return Spread(mean, (mean - reach, mean + reach), values=values, deviation=deviation)


def seeds_text(comparison: SeedsComparison) -> str:
    """The table of :func:`compare_seeds`, in points."""
    rows = comparison.rows
    labels = [row.size.label for row in rows[0].sizes]
    columns = [['range', *labels], ['objects', *(f'{x:,}' for x in comparison.num_objects)]]
    for row in rows:
        name = f'{row.model} minus {row.minus}' if row.minus else row.model
        cells = (_cell(x.scores['AP'], signed=bool(row.minus)) for x in row.sizes)
        columns.append([name, *cells])
    # What is more goes down the page: ranges beside a few models, or models beside the ranges.
    head, *table = columns if len(columns) > WIDEST else zip(*columns, strict=True)
    seeds = ', '.join(map(str, comparison.seeds))
    return (
        f'AP over seeds {seeds}\n{format_table(head, table)}\n'
        f'mean, standard deviation of models, {100 * CONFIDENCE:g} % interval of differences over '
        'seeds (Student); * excludes 0'
    )


def _cell(mean: Spread, signed: bool) -> str:
    if mean.value is None:
        return MISSING
    text = points(mean.value, signed)
    if not signed:
        return f'{text} ± {points(mean.deviation)}'
    mark = ' *' if mean.excludes_zero else '  '
    return f'{text} {interval_points(mean.interval, signed)}{mark}'


def seeds_csv(comparison: SeedsComparison) -> str:
    """One line per row and range, in fractions of 1, as :func:`report_csv`."""
    seeds = [f'AP_seed{seed}' for seed in comparison.seeds]
    columns = [
        *('model', 'minus', 'range', 'relative', 'area_low', 'area_high', 'num_objects'),
        *(*seeds, 'mean', 'deviation', 'low', 'high'),
    ]
    lines = []
    for part in comparison.rows:
        for num_objects, row in zip(comparison.num_objects, part.sizes, strict=True):
            ap = row.scores['AP']
            cells = dict(zip(seeds, ap.values, strict=True), mean=ap.value, deviation=ap.deviation)
            cells.update(zip(('low', 'high'), ap.interval, strict=True))
            lines.append(dict(model=part.model, minus=part.minus, num_objects=num_objects))
            lines[-1].update(range_cells(row.size), **cells)
    return csv_text(columns, lines)
