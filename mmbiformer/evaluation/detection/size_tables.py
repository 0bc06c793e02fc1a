"""The report of :func:`size_report` as text for the terminal and as CSV.

Text is in points, 0 to 100, as AP is published; files keep fractions of 1.
"""

from collections.abc import Iterator

from mmbiformer.tables import csv_text, format_table

from ..formatting import points, range_cells, score_cells, score_columns, with_interval
from ..report_data import DetectionReport, Detector, DetectorRow, Difference
from .bootstrap import KINDS
from .tide import SUMMARIES, TYPES

# The names that TIDE's own plots use.
SHORT_TYPES = dict(zip(TYPES, ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss'), strict=True))
ALL_CATEGORIES = 'all'


def report_text(report: DetectionReport) -> str:
    """The tables of all models, their differences, and what was dropped."""
    parts = [_format_model(model) for model in report.models]
    parts += [_format_difference(report, difference) for difference in report.differences]
    parts.append('\n'.join([*_legend(report), *(f'notice: {x}' for x in all_notices(report))]))
    return '\n\n'.join(parts)


def all_notices(report: DetectionReport) -> list[str]:
    """What was dropped or counts differently, of the ground truth and of each model."""
    notices = list(report.ground_truth.notices)
    for model in report.models:
        notices += [f'{model.name}: {notice}' for notice in model.notices]
    return notices


def _format_model(model: Detector) -> str:
    names = list(model.overall)
    lines = [
        '  '.join(f'{name} {points(model.overall[name].value)}' for name in chosen)
        for chosen in (names[:6], names[6:])
    ]
    table = []
    for row in model.sizes:
        ap, *others = row.scores.values()
        costs = [points(row.errors[kind].cost) for kind in TYPES]
        cells = [with_interval(ap), *(points(x.value) for x in others), *costs]
        table.append([row.size.label, f'{row.counts["num_objects"]:,}', *cells])
    head = ['range', 'objects', *model.sizes[0].scores, *SHORT_TYPES.values()]
    return '\n'.join([f'{model.name} ({model.path})', *lines, format_table(head, table)])


def _format_difference(report: DetectionReport, difference: Difference) -> str:
    table = []
    for row, of_first in zip(difference.sizes, report.models[0].sizes, strict=True):
        cells = [
            with_interval(x, signed=True) + (' *' if x.excludes_zero else '  ')
            for x in row.scores.values()
        ]
        table.append([row.size.label, f'{of_first.counts["num_objects"]:,}', *cells])
    text = format_table(['range', 'objects', *KINDS], table)
    return f'{difference.model} minus {difference.minus}\n{text}'


def _legend(report: DetectionReport) -> list[str]:
    short = ', '.join(f'{short} {name}' for name, short in SHORT_TYPES.items())
    noun = dict(bbox='boxes', segm='masks')[report.iou_type]
    lines = [
        f'judged by {noun}, in points, 0 to 100; errors in points of AP50 that mending them '
        f'gains: {short}'
    ]
    if report.bootstrap:
        lines.append(
            f'[{100 * report.bootstrap.confidence:g} % interval] over '
            f'{report.bootstrap.num_resamples:,} resamples of the images'
            + ('; * excludes 0' if report.differences else '')
        )
    return lines


def report_csv(report: DetectionReport) -> str:
    """One line per model, category and range; category 'all' is the mean over categories.

    'n/a' is a value that does not exist; what is not computed for a line is empty: errors and
    AP50 of single categories, intervals without a bootstrap, differences of the first model.
    Areas are in pixels or, where relative, fractions of the image's; all else fractions of 1.
    """
    columns = [
        *('model', 'category', 'range', 'relative', 'area_low', 'area_high', 'num_objects'),
        *(column for kind in KINDS for column in score_columns(kind)),
        'AR',
        *(f'cost_{_key(kind)}' for kind in (*TYPES, *SUMMARIES)),
        *(f'count_{_key(kind)}' for kind in TYPES),
        *(column for kind in KINDS for column in score_columns(f'{kind}_minus_first')),
    ]
    return csv_text(columns, _csv_lines(report))


def _key(kind: str) -> str:
    return kind.replace(' ', '_')


def _csv_lines(report: DetectionReport) -> Iterator[dict]:
    differences = {x.model: x.sizes for x in report.differences}
    for model in report.models:
        rows = [_mean_cells(row) for row in model.sizes]
        for cells, difference in zip(rows, differences.get(model.name, ()), strict=False):
            cells.update(score_cells(difference.scores, '_minus_first'))
        categories = [(ALL_CATEGORIES, rows)]
        for category in model.classes:
            rows = [row.counts | score_cells(row.scores) for row in category.sizes]
            categories.append((category.name, rows))
        for category, rows in categories:
            for size, cells in zip(report.ranges, rows, strict=True):
                yield dict(model=model.name, category=category, **range_cells(size), **cells)


def _mean_cells(row: DetectorRow) -> dict:
    cells = dict(row.counts, AR=row.scores['AR'].value)
    cells.update(score_cells({kind: row.scores[kind] for kind in KINDS}))
    for kind, error in row.errors.items():
        cells[f'cost_{_key(kind)}'] = error.cost
        if kind in TYPES:
            cells[f'count_{_key(kind)}'] = error.count
    return cells
