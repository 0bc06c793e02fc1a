"""The report of :func:`size_report` as text for the terminal and as CSV.

Text is in points, 0 to 100, as AP is published; files keep fractions of 1.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

from mmbiformer.tables import csv_text, format_table

from ..formatting import excludes_zero, points, with_interval
from ..sizes import COCO_RANGES
from .bootstrap import KINDS
from .tide import SUMMARIES, TYPES

# The names that TIDE's own plots use.
SHORT_TYPES = dict(
    classification='Cls',
    localisation='Loc',
    both='Both',
    duplicate='Dupe',
    background='Bkg',
    missed='Miss',
)
ALL_CATEGORIES = 'all'


def side_bounds(size: dict) -> tuple[float, float | None]:
    """Bounds of a range of the report as side lengths; None where it has no end.

    In pixels; in percent of the side of the square as large as the image where relative.
    """
    low, high = size['low'], size['high']
    if size['is_coco'] and high >= COCO_RANGES[0].high:
        high = None
    unit = 100 if size['relative'] else 1
    return unit * sqrt(low), None if high is None else unit * sqrt(high)


def range_label(size: dict) -> str:
    """Name of a range of the report, and its sides where the name does not say them."""
    low, high = side_bounds(size)
    unit, decimals = ('%', 2) if size['relative'] else ('', 1)
    begin = f'{round(low, decimals):g}'
    sides = f'{begin}{unit}+' if high is None else f'{begin}-{round(high, decimals):g}{unit}'
    if size['name'] == sides or size['name'] == COCO_RANGES[0].name:
        return size['name']
    return f'{size["name"]} ({sides}{" of side" if unit else " px"})'


def report_text(report: dict) -> str:
    """The tables of all models, their differences, and what was dropped.

    Args:
        report (dict): What :func:`size_report` returned.
    """
    parts = [_format_model(report, model) for model in report['models']]
    parts += [_format_difference(report, difference) for difference in report['differences']]
    parts.append('\n'.join([*_legend(report), *(f'notice: {x}' for x in all_notices(report))]))
    return '\n\n'.join(parts)


def all_notices(report: dict) -> list[str]:
    """What was dropped or counts differently, of the ground truth and of each model."""
    notices = list(report['ground_truth']['notices'])
    for model in report['models']:
        notices += [f'{model["name"]}: {notice}' for notice in model['notices']]
    return notices


def _format_model(report: dict, model: dict) -> str:
    names = list(model['coco'])
    lines = [
        '  '.join(f'{name} {points(model["coco"][name])}' for name in chosen)
        for chosen in (names[:6], names[6:])
    ]
    table = []
    for size, row in zip(report['ranges'], model['sizes'], strict=True):
        costs = [points(row['errors'][kind]['cost']) for kind in TYPES]
        others = [points(row[name]) for name in ('AP50', 'AP75', 'AR')]
        label, objects = range_label(size), f'{row["num_objects"]:,}'
        table.append([label, objects, with_interval(row, 'AP'), *others, *costs])
    head = ['range', 'objects', 'AP', 'AP50', 'AP75', 'AR', *SHORT_TYPES.values()]
    return '\n'.join([f'{model["name"]} ({model["path"]})', *lines, format_table(head, table)])


def _format_difference(report: dict, difference: dict) -> str:
    table = []
    objects = [row['num_objects'] for row in report['models'][0]['sizes']]
    for size, count, row in zip(report['ranges'], objects, difference['sizes'], strict=True):
        cells = []
        for kind in KINDS:
            differs = 'intervals' in row and excludes_zero(row['intervals'][kind])
            cells.append(with_interval(row, kind, signed=True) + (' *' if differs else '  '))
        table.append([range_label(size), f'{count:,}', *cells])
    text = format_table(['range', 'objects', *KINDS], table)
    return f'{difference["model"]} minus {difference["minus"]}\n{text}'


def _legend(report: dict) -> list[str]:
    short = ', '.join(f'{short} {name}' for name, short in SHORT_TYPES.items())
    noun = dict(bbox='boxes', segm='masks')[report['iou_type']]
    lines = [
        f'judged by {noun}, in points, 0 to 100; errors in points of AP50 that mending them '
        f'gains: {short}'
    ]
    bootstrap = report['bootstrap']
    if bootstrap:
        lines.append(
            f'[{100 * bootstrap["confidence"]:g} % interval] over '
            f'{bootstrap["num_resamples"]:,} resamples of the images'
            + ('; * excludes 0' if report['differences'] else '')
        )
    return lines


def report_csv(report: dict) -> str:
    """One line per model, category and range; category 'all' is the mean over categories.

    'n/a' is a value that does not exist; what is not computed for a line is empty: errors and
    AP50 of single categories, intervals without a bootstrap, differences of the first model.
    Areas are in pixels or, where relative, fractions of the image's; all else fractions of 1.
    """
    columns = [
        *('model', 'category', 'range', 'relative', 'area_low', 'area_high', 'num_objects'),
        *(f'{kind}{end}' for kind in KINDS for end in ('', '_low', '_high')),
        'AR',
        *(f'cost_{_key(kind)}' for kind in (*TYPES, *SUMMARIES)),
        *(f'count_{_key(kind)}' for kind in TYPES),
        *(f'{kind}_minus_first{end}' for kind in KINDS for end in ('', '_low', '_high')),
    ]
    return csv_text(columns, _csv_lines(report))


def _key(kind: str) -> str:
    return kind.replace(' ', '_')


def _csv_lines(report: dict) -> Iterator[dict]:
    differences = {x['model']: x['sizes'] for x in report['differences']}
    for model in report['models']:
        none = [{} for _ in report['ranges']]
        found = zip(model['sizes'], differences.get(model['name'], none), strict=True)
        means = [_mean_values(row, difference) for row, difference in found]
        lines = [(ALL_CATEGORIES, means)]
        for category in model['categories']:
            lines.append((category['name'], [_category_values(x) for x in category['sizes']]))
        for category, rows in lines:
            for size, values in zip(report['ranges'], rows, strict=True):
                yield dict(
                    model=model['name'],
                    category=category,
                    range=size['name'],
                    relative=size['relative'],
                    area_low=size['low'],
                    area_high='inf' if size['high'] is None else size['high'],
                    **values,
                )


def _mean_values(row: dict, difference: dict) -> dict:
    errors = row['errors']
    values = dict(num_objects=row['num_objects'], AR=row['AR'])
    values.update({f'cost_{_key(kind)}': errors[kind]['cost'] for kind in errors})
    values.update({f'count_{_key(kind)}': errors[kind]['count'] for kind in TYPES})
    for source, end in ((row, ''), (difference, '_minus_first')):
        for kind in KINDS if source else ():
            values[kind + end] = source[kind]
            if 'intervals' in source:
                values.update(_bounds(kind + end, source['intervals'][kind]))
    return values


def _category_values(cell: dict) -> dict:
    bounds = _bounds('AP', cell['interval']) if 'interval' in cell else {}
    return dict(num_objects=cell['num_objects'], AP=cell['AP'], **bounds)


def _bounds(key: str, bounds: Sequence[float | None]) -> dict:
    return dict(zip((f'{key}_low', f'{key}_high'), bounds, strict=True))
