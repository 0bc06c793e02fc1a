"""Reports as one HTML file that needs nothing else."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from ..detection.bootstrap import KINDS
from ..detection.size_tables import all_notices, range_label
from ..detection.tide import SUMMARIES, TYPES
from ..formatting import excludes_zero, interval_points, points, with_interval
from ..segmentation.segment_report import overall_scores, ranges_of
from ..segmentation.segment_sizes import BY_SIZE
from ..segmentation.segment_tables import DECIMALS, segment_notices
from .drawing import Album

TEMPLATE, SEGMENT_TEMPLATE = 'size_report.html.j2', 'segment_report.html.j2'
# What is said of single ranges rests on at least as many objects.
ENOUGH_OBJECTS = 20


@dataclass
class Picture:
    """A figure as the report shows it."""

    uri: str
    alt: str


def as_picture(figure: Figure, alt: str) -> Picture:
    """A figure as SVG in a data URI: sharp at any size, and no id of it meets another's.

    Args:
        figure (Figure): Of matplotlib.
        alt (str): What it shows, for those who do not see it.
    """
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata=dict(Date=None))
    return Picture('data:image/svg+xml;base64,' + b64encode(file.getvalue()).decode(), alt)


def render_html(
    report: dict, figures: dict[str, Figure], album: Album, title: str, made: dict
) -> str:
    """Render the report of :func:`size_report`.

    Args:
        report (dict): What :func:`size_report` returned.
        figures (dict): 'ap', 'errors' and, of several models, 'differences'.
        album (Album): What :func:`draw_worst_images` returned.
        title (str): Of the page.
        made (dict): How it was made: command (may be None), date and version.
    """
    names = ' and '.join(model['name'] for model in report['models'])
    alts = dict(
        ap=f'AP of {names} in each size range, and numbers of objects; values in the table below',
        errors=f'Costs of the types of error of {names} in each range; values in the table below',
        differences='Differences in AP in each size range; values in the table below',
    )
    return (
        _environment(decimals=1)
        .get_template(TEMPLATE)
        .render(
            report=report,
            title=title,
            made=made,
            labels=[range_label(size) for size in report['ranges']],
            is_relative=any(size['relative'] for size in report['ranges']),
            noun=dict(bbox='box', segm='mask')[report['iou_type']],
            kinds=list(KINDS),
            types=TYPES,
            summaries=SUMMARIES,
            highest_cost=_highest_cost(report),
            findings=findings(report),
            notices=all_notices(report) + album.notices,
            pictures={key: as_picture(figure, alts[key]) for key, figure in figures.items()},
            album=album,
        )
    )


def render_segment_html(report: dict, figure: Figure, made: dict) -> str:
    """Render the report of :func:`segment_report`.

    Args:
        report (dict): What :func:`segment_report` returned.
        figure (Figure): What :func:`draw_segments` returned.
        made (dict): How it was made: command (may be None), date and version.
    """
    names = ' and '.join(model['name'] for model in report['models'])
    ranges = ranges_of(report)
    environment = _environment(decimals=DECIMALS)
    environment.filters['totals'] = overall_scores
    return environment.get_template(SEGMENT_TEMPLATE).render(
        report=report,
        title='Segmentation across segment sizes',
        made=made,
        labels=[range_label(size) for size in ranges],
        is_relative=any(size['relative'] for size in ranges),
        kinds=list(BY_SIZE),
        overall=['mIoU', 'mAcc', 'aAcc'],
        notices=segment_notices(report),
        picture=as_picture(
            figure,
            f'Pixel recall and segments found of {names} in each size range, and numbers of '
            'segments; values in the table below',
        ),
    )


def _environment(decimals: int) -> Environment:
    """Of templates that show scores with so many decimals."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=partial(points, decimals=decimals),
        interval=partial(interval_points, decimals=decimals),
        count=lambda number: f'{number:,}',
        short=lambda number: f'{number:.4g}',
    )
    environment.tests['excluding_zero'] = excludes_zero
    return environment


def _highest_cost(report: dict) -> float:
    """Of any type, model and range: what the darkest cell stands for."""
    rows = [row for model in report['models'] for row in model['sizes']]
    costs = [row['errors'][kind]['cost'] for row in rows for kind in (*TYPES, *SUMMARIES)]
    return max((x for x in costs if x is not None), default=0) or 1


def findings(report: dict) -> list[str]:
    """What stands out, in sentences: of each model, then of each difference."""
    found = []
    labels = [range_label(size) for size in report['ranges']]
    further = [i for i, size in enumerate(report['ranges']) if not size['is_coco']]
    for model in report['models']:
        rows = model['sizes']
        if rows[0]['AP'] is None:
            found.append(f'{model["name"]}: no objects, hence no AP.')
            continue
        parts = [f'{model["name"]}: AP {with_interval(rows[0], "AP")} over all sizes']
        many = [i for i in further if rows[i]['num_objects'] >= ENOUGH_OBJECTS]
        if len(many) > 1:
            low, high = (f(many, key=lambda i: rows[i]['AP']) for f in (min, max))
            parts.append(
                f'of the ranges with {ENOUGH_OBJECTS} objects or more it is lowest in '
                f'{labels[low]}, {with_interval(rows[low], "AP")}, and highest in {labels[high]}, '
                f'{with_interval(rows[high], "AP")}'
            )
        costs = {kind: rows[0]['errors'][kind]['cost'] for kind in TYPES}
        worst = max(costs, key=costs.get)
        parts.append(f'its costliest type of error is {worst}, {points(costs[worst])} of AP50')
        found.append('; '.join(parts) + '.')
    found += [_compare(report, difference, labels) for difference in report['differences']]
    return found


def _compare(report: dict, difference: dict, labels: Sequence[str]) -> str:
    rows = difference['sizes']
    overall = with_interval(rows[0], 'AP', signed=True)
    text = f'{difference["model"]} minus {difference["minus"]}: AP {overall}'
    if not report['bootstrap']:
        return f'{text}; without a bootstrap, whether that is chance is unknown.'
    known = [
        (label, row)
        for label, row in zip(labels, rows, strict=True)
        if excludes_zero(row['intervals']['AP'])
    ]
    if not known:
        return f'{text}; in no range does the interval exclude 0.'
    # The sign is the interval's: a skewed one can lie beside the value.
    better, worse = (
        [label for label, row in known if (row['intervals']['AP'][0] > 0) == is_better]
        for is_better in (True, False)
    )
    parts = [
        f'{word} in {", ".join(chosen)}'
        for word, chosen in (('better', better), ('worse', worse))
        if chosen
    ]
    return f'{text}; the interval excludes 0, with {difference["model"]} {" and ".join(parts)}.'
