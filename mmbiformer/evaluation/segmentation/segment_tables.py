"""Reports on segmenters as text for the terminal and as CSV.

Text is in percent with two decimals, as mmseg shows it; files keep fractions of 1.
"""

from collections.abc import Iterator

from mmbiformer.tables import csv_text, format_table

from ..formatting import range_cells, score_cells, score_columns, with_interval
from ..report_data import Difference, Model, Report, Score
from .segment_sizes import BY_SIZE

DECIMALS = 2
ALL_CLASSES = 'all'
COUNTS = ('segments', 'images', 'pixels')
HEADS = [name.replace('_', ' ') for name in BY_SIZE]
LEGEND = (
    'segments are 8-connected; pixel recall: share of all their pixels that are right; class '
    'recall: mean of that share over classes; segments found: at least half of the pixels right'
)


def segment_notices(report: Report) -> list[str]:
    """The notices that all models share once, and those of single ones with their name."""
    models = report.models
    shared = [x for x in models[0].notices if all(x in other.notices for other in models)]
    own = [
        f'{model.name}: {notice}'
        for model in models
        for notice in model.notices
        if notice not in shared
    ]
    return shared + own


def segment_report_text(report: Report) -> str:
    """The tables of all models, and of their differences, in percent."""
    parts = [f'{x.name}: {x.path}, in percent\n{format_summary(x)}' for x in report.models]
    for difference in report.differences:
        rows = [
            [row.size.name, *(_cell(x, signed=True) for x in row.scores.values())]
            for row in difference.sizes
        ]
        table = format_table(['size', *HEADS], rows)
        title = f'{difference.model} minus {difference.minus}, in points'
        overall = _cell(difference.overall['mIoU'], signed=True)
        parts.append(f'{title}\n{table}\nmIoU {overall}')
    return '\n\n'.join(parts)


def format_summary(model: Model) -> str:
    """The table of sizes of :func:`summarise`, in percent, and its notices."""
    rows = []
    for row in model.sizes:
        counts = [f'{row.counts[name]:,}' for name in COUNTS]
        rows.append([row.size.name, *counts, *map(_cell, row.scores.values())])
    table = format_table(['size', *COUNTS, *HEADS], rows)
    return '\n'.join([table, LEGEND, f'mIoU {_cell(model.overall["mIoU"])}', *model.notices])


def _cell(score: Score, signed: bool = False) -> str:
    return with_interval(score, signed, DECIMALS)


def segment_csv(report: Report) -> str:
    """One line per model, class and range; class 'all' is over all classes.

    IoU is of all sizes alone, and of class 'all' it is mIoU. 'n/a' is a value that does not exist;
    what is not computed for a line is empty. Areas are in pixels or, where relative, fractions of
    the image's; scores are fractions.
    """
    scores = [f'{name}{end}' for name in (*BY_SIZE, 'IoU') for end in ('', '_minus_first')]
    columns = [
        *('model', 'class', 'range', 'relative', 'area_low', 'area_high'),
        *COUNTS,
        *(column for score in scores for column in score_columns(score)),
    ]
    return csv_text(columns, _csv_lines(report))


def _csv_lines(report: Report) -> Iterator[dict]:
    differences = {x.model: x for x in report.differences}
    for model in report.models:
        rows = [{name: row.counts[name] for name in COUNTS} for row in model.sizes]
        _add_scores(rows, model, '')
        if model.name in differences:
            _add_scores(rows, differences[model.name], '_minus_first')
        classes = [(ALL_CLASSES, rows)]
        for one in model.classes:
            rows = [
                row.counts | {name: x.value for name, x in row.scores.items()} for row in one.sizes
            ]
            rows[0]['IoU'] = one.scores['IoU'].value
            classes.append((one.name, rows))
        for name, rows in classes:
            for size, cells in zip(report.ranges, rows, strict=True):
                yield {'model': model.name, 'class': name, **range_cells(size), **cells}


def _add_scores(rows: list[dict], part: Model | Difference, end: str) -> None:
    """Add the scores of a model or a difference, in columns of this ending."""
    for cells, row in zip(rows, part.sizes, strict=True):
        cells.update(score_cells(row.scores, end))
    rows[0].update(score_cells(dict(IoU=part.overall['mIoU']), end))
