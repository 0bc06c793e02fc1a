"""Reports on segmenters as text for the terminal and as CSV.

Text is in percent with two decimals, as mmseg shows it; files keep fractions of 1.
"""

from collections.abc import Iterator

from mmbiformer.tables import csv_text, format_table

from ..formatting import with_interval
from .segment_report import overall_scores
from .segment_sizes import BY_SIZE

DECIMALS = 2
ALL_CLASSES = 'all'
HEADS = [name.replace('_', ' ') for name in BY_SIZE]
LEGEND = (
    'segments are 8-connected; pixel recall: share of all their pixels that are right; class '
    'recall: mean of that share over classes; segments found: at least half of the pixels right'
)


def segment_notices(report: dict) -> list[str]:
    """The notices that all models share once, and those of single ones with their name."""
    models = report['models']
    shared = [x for x in models[0]['notices'] if all(x in other['notices'] for other in models)]
    own = [
        f'{model["name"]}: {notice}'
        for model in models
        for notice in model['notices']
        if notice not in shared
    ]
    return shared + own


def segment_report_text(report: dict) -> str:
    """The tables of all models, and of their differences, in percent."""
    parts = [
        f'{x["name"]}: {x["path"]}, in percent\n{format_summary(x)}' for x in report['models']
    ]
    for difference in report['differences']:
        rows = [
            [row['name'], *(_cell(row, name, True) for name in BY_SIZE)]
            for row in difference['sizes']
        ]
        overall = _cell(difference, 'mIoU', True)
        title = f'{difference["model"]} minus {difference["minus"]}, in points'
        parts.append(f'{title}\n{format_table(["size", *HEADS], rows)}\nmIoU {overall}')
    return '\n\n'.join(parts)


def format_summary(summary: dict) -> str:
    """The table of sizes of :func:`summarise`, in percent, and its notices."""
    columns = ('segments', 'images', 'pixels')
    rows = []
    for row in summary['sizes']:
        counts = (f'{row[name]:,}' for name in columns)
        rows.append([row['name'], *counts, *(_cell(row, name) for name in BY_SIZE)])
    overall = f'mIoU {_cell(summary["totals"], "mIoU")}'
    table = format_table(['size', *columns, *HEADS], rows)
    return '\n'.join([table, LEGEND, overall, *summary['notices']])


def _cell(row: dict, score: str, signed: bool = False) -> str:
    return with_interval(row, score, signed, DECIMALS)


def segment_csv(report: dict) -> str:
    """One line per model, class and range; class 'all' is over all classes.

    IoU is of all sizes alone, and of class 'all' it is mIoU. 'n/a' is a value that does not exist;
    what is not computed for a line is empty. Areas are in pixels or, where relative, fractions of
    the image's; scores are fractions.
    """
    scores = [f'{name}{end}' for name in (*BY_SIZE, 'IoU') for end in ('', '_minus_first')]
    columns = [
        *('model', 'class', 'range', 'relative', 'area_low', 'area_high'),
        *('segments', 'images', 'pixels'),
        *(f'{name}{end}' for name in scores for end in ('', '_low', '_high')),
    ]
    return csv_text(columns, _csv_lines(report))


def _csv_lines(report: dict) -> Iterator[dict]:
    differences = {x['model']: x for x in report['differences']}
    for model in report['models']:
        parts = {'': model}
        if model['name'] in differences:
            parts['_minus_first'] = differences[model['name']]
        lines = [(ALL_CLASSES, [_csv_values(parts, a) for a in range(len(model['sizes']))])]
        for row in model['classes']:
            iou = [dict(IoU=row['IoU']), *({} for _ in row['sizes'][1:])]
            lines.append((row['name'], [x | y for x, y in zip(row['sizes'], iou, strict=True)]))
        for name, cells in lines:
            for size, values in zip(model['sizes'], cells, strict=True):
                yield {
                    'model': model['name'],
                    'class': name,
                    'range': size['name'],
                    'relative': size['relative'],
                    'area_low': size['low'],
                    'area_high': 'inf' if size['high'] is None else size['high'],
                    **values,
                }


def _csv_values(parts: dict[str, dict], a: int) -> dict:
    """Counts and scores of one range; ``parts`` maps an ending of columns to whose scores."""
    values = {key: parts['']['sizes'][a][key] for key in ('segments', 'images', 'pixels')}
    for end, part in parts.items():
        sources = {f'{name}{end}': (part['sizes'][a], name) for name in BY_SIZE}
        if not a:
            sources[f'IoU{end}'] = overall_scores(part), 'mIoU'
        for column, (source, key) in sources.items():
            values[column] = source[key]
            low, high = source['intervals'].get(key, ('', ''))
            values.update({f'{column}_low': low, f'{column}_high': high})
    return values
