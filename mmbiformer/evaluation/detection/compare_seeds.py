"""Reports of the same models trained with several seeds, put together.

The intervals of a single report are over images. Those here are over trainings: Student's t over
the seeds, on the same validation images.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy.stats import t as student

from mmbiformer.tables import MISSING, csv_text, format_table

from ..formatting import excludes_zero, interval_points, points
from ..resampling import CONFIDENCE
from .size_tables import range_label


def compare_seeds(reports: dict[int, dict]) -> dict:
    """Mean AP, and mean difference to the first model, over seeds.

    Args:
        reports (dict): seed -> what :func:`size_report` returned, of the same ground truth, ranges
            and models.

    Returns:
        dict: seeds, ranges (with num_objects) and rows, one for each model and one for each
        difference: model, minus (None of a model's own AP), and of each range values (by seed),
        mean, deviation (of a sample) and interval; None where a seed has no AP, and the last two
        where there is one seed alone.
    """
    first, *_ = reports.values()
    objects = [size['num_objects'] for size in first['models'][0]['sizes']]
    rows = []
    for kind in ('models', 'differences'):
        for position, part in enumerate(first[kind]):
            by_seed = [
                [size['AP'] for size in x[kind][position]['sizes']] for x in reports.values()
            ]
            rows.append(
                dict(
                    model=part['name'] if kind == 'models' else part['model'],
                    minus=part.get('minus'),
                    sizes=[_spread(values) for values in zip(*by_seed, strict=True)],
                )
            )
    ranges = [dict(x, num_objects=n) for x, n in zip(first['ranges'], objects, strict=True)]
    return dict(seeds=list(reports), ranges=ranges, rows=rows)


def _spread(values: Sequence[float | None]) -> dict:
    row = dict(values=list(values), mean=None, deviation=None, interval=[None, None])
    if None not in values:
        row['mean'] = float(np.mean(values))
        if len(values) > 1:
            row['deviation'] = float(np.std(values, ddof=1))
            reach = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
            reach *= row['deviation'] / sqrt(len(values))
            row['interval'] = [row['mean'] - reach, row['mean'] + reach]
    return row


def seeds_text(comparison: dict) -> str:
    """The table of :func:`compare_seeds`, in points."""
    rows = comparison['rows']
    table = []
    for a, size in enumerate(comparison['ranges']):
        cells = [_cell(row['sizes'][a], signed=row['minus'] is not None) for row in rows]
        table.append([range_label(size), f'{size["num_objects"]:,}', *cells])
    seeds = ', '.join(map(str, comparison['seeds']))
    text = format_table(['range', 'objects', *map(_name, rows)], table)
    return (
        f'AP over seeds {seeds}\n{text}\n'
        f'mean, standard deviation of models, {100 * CONFIDENCE:g} % interval of differences over '
        'seeds (Student); * excludes 0'
    )


def _name(row: dict) -> str:
    return row['model'] if row['minus'] is None else f'{row["model"]} minus {row["minus"]}'


def _cell(size: dict, signed: bool) -> str:
    if size['mean'] is None:
        return MISSING
    text = points(size['mean'], signed)
    if not signed:
        return f'{text} ± {points(size["deviation"])}'
    mark = ' *' if excludes_zero(size['interval']) else '  '
    return f'{text} {interval_points(size["interval"], signed)}{mark}'


def seeds_csv(comparison: dict) -> str:
    """One line per row and range, in fractions of 1, as :func:`report_csv`."""
    seeds = [f'AP_seed{seed}' for seed in comparison['seeds']]
    columns = [
        *('model', 'minus', 'range', 'relative', 'area_low', 'area_high', 'num_objects'),
        *(*seeds, 'mean', 'deviation', 'low', 'high'),
    ]
    lines = []
    for row in comparison['rows']:
        for size, cell in zip(comparison['ranges'], row['sizes'], strict=True):
            low, high = cell['interval']
            lines.append(
                dict(
                    model=row['model'],
                    minus=row['minus'] or '',
                    range=size['name'],
                    relative=size['relative'],
                    area_low=size['low'],
                    area_high='inf' if size['high'] is None else size['high'],
                    num_objects=size['num_objects'],
                    **dict(zip(seeds, cell['values'], strict=True)),
                    mean=cell['mean'],
                    deviation=cell['deviation'],
                    low=low,
                    high=high,
                )
            )
    return csv_text(columns, lines)
