"""Reports as one HTML file that needs nothing else."""

import io
from base64 import b64encode
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from ..detection.bootstrap import KINDS
from ..detection.size_tables import all_notices
from ..detection.tide import SUMMARIES, TYPES
from ..formatting import interval_points, points, with_interval
from ..report_data import DetectionReport, Detector, Difference, Report
from ..segmentation.segment_sizes import BY_SIZE
from ..segmentation.segment_tables import DECIMALS, segment_notices
from .drawing import Album

# What is said of single ranges rests on at least as many objects.
ENOUGH_OBJECTS = 20


def svg_uri(figure: Figure) -> str:
    """A figure as SVG in a data URI: sharp at any size, and no id of it meets another's."""
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata=dict(Date=None))
    return 'data:image/svg+xml;base64,' + b64encode(file.getvalue()).decode()


def render_html(
    report: DetectionReport, figures: dict[str, Figure], album: Album, title: str, made: dict
) -> str:
    """Render the report of :func:`size_report`.

    ``figures`` are 'ap', 'errors' and, of several models, 'differences'; ``made`` says how the
    report was made: command (may be None), date and version.
    """
    return _render(
        'size_report.html.j2',
        report,
        decimals=1,
        title=title,
        made=made,
        noun=dict(bbox='box', segm='mask')[report.iou_type],
        kinds=list(KINDS),
        types=TYPES,
        summaries=SUMMARIES,
        highest_cost=_highest_cost(report),
        findings=findings(report),
        notices=all_notices(report) + album.notices,
        pictures={key: svg_uri(figure) for key, figure in figures.items()},
        album=album,
    )


def render_segment_html(report: Report, figure: Figure, made: dict) -> str:
    """Render the report of :func:`segment_report` with the figure of :func:`draw_segments`."""
    return _render(
        'segment_report.html.j2',
        report,
        decimals=DECIMALS,
        title='Segmentation across segment sizes',
        made=made,
        kinds=list(BY_SIZE),
        overall=['mIoU', 'mAcc', 'aAcc'],
        notices=segment_notices(report),
        picture=svg_uri(figure),
    )


def page_environment(*folders: Path, decimals: int = 1) -> Environment:
    """What fills templates: of these folders, and those that all pages share.

    Scores are shown with so many decimals.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
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
    return environment


def _render(template: str, report: Report, decimals: int, **content: object) -> str:
    names = [model.name for model in report.models]
    return (
        page_environment(decimals=decimals)
        .get_template(template)
        .render(
            report=report,
            bootstrap=report.bootstrap,
            several=len(names) > 1,
            names=' and '.join(names),
            **content,
        )
    )


def _highest_cost(report: DetectionReport) -> float:
    """Of any type, model and range: what the darkest cell stands for."""
    rows = [row for model in report.models for row in model.sizes]
    costs = [error.cost for row in rows for error in row.errors.values()]
    return max((x for x in costs if x is not None), default=0) or 1


def findings(report: DetectionReport) -> list[str]:
    """What stands out, in sentences: of each model, then of each difference."""
    return [_describe(x) for x in report.models] + [
        _compare(report, x) for x in report.differences
    ]


def _describe(model: Detector) -> str:
    everything = model.sizes[0]
    if everything.scores['AP'].value is None:
        return f'{model.name}: no objects, hence no AP.'
    parts = [f'{model.name}: AP {with_interval(everything.scores["AP"])} over all sizes']
    further = [row for row in model.sizes if not row.size.is_coco]
    many = [row for row in further if row.counts['num_objects'] >= ENOUGH_OBJECTS]
    if len(many) > 1:
        low, high = (f(many, key=lambda row: row.scores['AP'].value) for f in (min, max))
        parts.append(
            f'of the ranges with {ENOUGH_OBJECTS} objects or more it is lowest in '
            f'{low.size.label}, {with_interval(low.scores["AP"])}, and highest in '
            f'{high.size.label}, {with_interval(high.scores["AP"])}'
        )
    costs = {kind: everything.errors[kind].cost for kind in TYPES}
    worst = max(costs, key=costs.get)
    parts.append(f'its costliest type of error is {worst}, {points(costs[worst])} of AP50')
    return '; '.join(parts) + '.'


def _compare(report: DetectionReport, difference: Difference) -> str:
    overall = with_interval(difference.sizes[0].scores['AP'], signed=True)
    text = f'{difference.model} minus {difference.minus}: AP {overall}'
    if not report.bootstrap:
        return f'{text}; without a bootstrap, whether that is chance is unknown.'
    sure = [row for row in difference.sizes if row.scores['AP'].excludes_zero]
    if not sure:
        return f'{text}; in no range does the interval exclude 0.'
    # The sign is the interval's: a skewed one can lie beside the value.
    labels = dict(better=[], worse=[])
    for row in sure:
        is_better = row.scores['AP'].interval[0] > 0
        labels['better' if is_better else 'worse'].append(row.size.label)
    parts = [f'{word} in {", ".join(chosen)}' for word, chosen in labels.items() if chosen]
    return f'{text}; the interval excludes 0, with {difference.model} {" and ".join(parts)}.'
