"""Pictures of reports: AP, errors, differences and recall of segments against size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from pathlib import PurePath
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmbiformer.figures import new_figure
from mmbiformer.tables import MISSING

from ..detection.tide import SUMMARIES, TYPES
from ..report_data import DetectionReport, Difference, Model, Report, Score, SizeRow
from ..sizes import SizeRange

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers tell them in grey.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
MARKERS = 'osD^vPX*'
GREY = '#6b6b6b'
NOUNS = dict(bbox='box', segm='mask')
LETTERS_PER_INCH = 17  # of the caption
SPREAD = 0.5  # of a bin's width, over which the models are laid out side by side
LOG = ', log scale'
# Beyond this ratio of widths, narrow bins get no room for their names.
LARGEST_RATIO = 3.5


@dataclass
class Bins:
    """Where the ranges lie on the x axis; COCO's own only where there are no others.

    Attributes:
        positions (list[int]): Theirs in the report.
        names (list[str]): Labels, those that do not say their sides in two lines.
        edges (list[tuple]): Left and right end of each; log2 of sides where ``is_log``.
        is_log (bool): Whether they are placed by their sides; else side by side.
        label (str): Of the axis.
    """

    positions: list[int]
    names: list[str]
    edges: list[tuple[float, float]]
    is_log: bool
    label: str

    def of(self, part: Model | Difference) -> list[SizeRow]:
        """The rows that these bins show of a model or a difference."""
        return [part.sizes[position] for position in self.positions]

    def counts(self, report: Report, noun: str) -> list[int]:
        """How many objects or segments each has."""
        return [row.counts[noun] for row in self.of(report.models[0])]

    @property
    def centres(self) -> np.ndarray:
        return np.array(self.edges).mean(axis=1)

    @property
    def widths(self) -> np.ndarray:
        return np.diff(self.edges)[:, 0]


def place_bins(ranges: Sequence[SizeRange], noun: str = 'object') -> Bins:
    """Lay out a report's ranges but the first, that of all sizes; ``noun`` is what has a side.

    They lie by their sides where each begins at the end of the one before.
    """
    further = [i for i, size in enumerate(ranges) if i and not size.is_coco]
    positions = further or [1, 2, 3]  # small, medium, large
    chosen = [ranges[i] for i in positions]
    unit = '% of √(image area)' if chosen[0].relative else 'px'
    edges = _log_edges([size.sides for size in chosen])
    is_log = edges is not None
    return Bins(
        positions=positions,
        names=[size.label.replace(' (', '\n(') for size in chosen],
        edges=edges if is_log else [(i - 0.5, i + 0.5) for i in range(len(chosen))],
        is_log=is_log,
        label=f'side of {noun} (√area), {unit}' + (LOG if is_log else ''),
    )


def _log_edges(sides: Sequence[tuple[float, float | None]]) -> list[tuple[float, float]] | None:
    """An open end is one octave long. None where the bins do not fit one scale."""
    if any(high != low for (_, high), (low, _) in pairwise(sides)):
        return None
    edges = []
    for low, high in sides:
        if not low and not high:
            return None
        high = high or 2 * low
        edges.append((log2(low or high / 2), log2(high)))
    widths = [right - left for left, right in edges]
    return edges if max(widths) <= LARGEST_RATIO * min(widths) else None


def draw_ap(report: DetectionReport) -> Figure:
    """AP of each model in each range, with intervals; below it, how many objects there are."""
    bins = place_bins(report.ranges)
    figure, (top, _) = new_figure((9, 5.8), 2, gridspec_kw=dict(height_ratios=[3.4, 1]))
    lines = _draw_models(top, report, bins, 'AP')
    shows_coco = bins.is_log and not report.ranges[bins.positions[0]].relative
    for i, model in enumerate(report.models if shows_coco else ()):
        _draw_coco(top, model.sizes, bins, _color(i))
    _legend(figure, lines, [model.name for model in report.models])
    top.set_ylabel(f'{NOUNS[report.iou_type]} AP, points')
    _stack(figure, bins, bins.counts(report, 'num_objects'), 'objects')
    note = "dotted: AP in COCO's small, medium and large" if shows_coco else ''
    _caption(figure, report, _describe(report), note)
    return figure


def draw_segments(report: Report) -> Figure:
    """Recall of pixels and of segments of each model in each range, and numbers of segments."""
    bins = place_bins(report.ranges, 'segment')
    figure, panels = new_figure((9, 8), 3, gridspec_kw=dict(height_ratios=[2.6, 2.6, 1]))
    for axes, kind in zip(panels, ('pixel_recall', 'segments_found'), strict=False):
        lines = _draw_models(axes, report, bins, kind)
        axes.set_ylabel(f'{kind.replace("_", " ")}, %')
    _legend(figure, lines, [model.name for model in report.models])
    _stack(figure, bins, bins.counts(report, 'segments'), 'segments')
    first = report.models[0]
    images, segments = first.counts['images'], first.sizes[0].counts['segments']
    _caption(figure, report, f'{images:,} images, {segments:,} segments')
    return figure


def draw_errors(report: DetectionReport) -> Figure:
    """What each type of error costs each model in each range: a panel per type, bars per model.

    The costs do not add up, hence they are not stacked.
    """
    bins = place_bins(report.ranges)
    centres = np.arange(len(bins.positions))
    kinds = (*TYPES, *SUMMARIES)
    figure, panels = new_figure((12, 6), 2, len(kinds) // 2, sharey=True)
    num_models = len(report.models)
    width = 0.8 / num_models
    for axes, kind in zip(panels, kinds, strict=True):
        bars = []
        for i, model in enumerate(report.models):
            costs = _points(row.errors[kind].cost for row in bins.of(model))
            x = centres + (i - (num_models - 1) / 2) * width
            bars.append(axes.bar(x, costs, width, color=_color(i)))
        axes.axhline(0, color=GREY, lw=0.6)
        axes.set_title(f'all {kind}' if kind in SUMMARIES else kind, loc='left', fontsize=10)
        _mark_empty(axes, centres, bins.counts(report, 'num_objects'), rotation=90)
        names = [report.ranges[position].name for position in bins.positions]
        axes.set_xticks(centres, names, rotation=90, fontsize=8, parse_math=False)
        axes.set_xlim(-0.7, len(centres) - 0.3)
        _quieten(axes)
    for axes in panels[:: len(kinds) // 2]:
        axes.set_ylabel('AP50 gained, points')
    for axes in panels[len(kinds) // 2 :]:
        axes.set_xlabel(bins.label.removesuffix(LOG), fontsize=8)
    _legend(figure, bars, [model.name for model in report.models])
    note = 'AP50 that mending a type of error gains; costs do not add up'
    _caption(figure, report, _describe(report), note, has_intervals=False)
    return figure


def draw_differences(report: DetectionReport) -> Figure:
    """AP of each further model minus that of the first, with intervals."""
    bins = place_bins(report.ranges)
    figure, [axes] = new_figure((9, 3.8))
    axes.axhline(0, color=GREY, lw=1)
    differences = report.differences
    options = dict(markerfacecolor='white') if report.bootstrap else {}
    lines = []
    for i, difference in enumerate(differences):
        scores = [row.scores['AP'] for row in bins.of(difference)]
        x = _beside(bins, i, len(differences))
        lines.append(_draw_values(axes, x, scores, i + 1, linestyle='none', **options))
        is_sure = [score.excludes_zero for score in scores]
        sure = _points(score.value for score in scores)[is_sure]
        axes.plot(x[is_sure], sure, **_style(i + 1), linestyle='none', zorder=4)
    _mark_empty(axes, bins.centres, bins.counts(report, 'num_objects'))
    _legend(figure, lines, [f'{x.model} minus {x.minus}' for x in differences])
    axes.set_ylabel(f'difference in {NOUNS[report.iou_type]} AP, points')
    _dress(axes, bins)
    axes.set_xlabel(bins.label)
    note = 'filled: the interval excludes 0' if report.bootstrap else ''
    _caption(figure, report, _describe(report), note)
    return figure


def _points(fractions) -> np.ndarray:
    """nan for None."""
    return 100 * np.array([np.nan if x is None else x for x in fractions], float)


def _beside(bins: Bins, model: int, num_models: int) -> np.ndarray:
    """x of a model in each bin, so that whiskers do not hide each other."""
    shift = (model + 0.5) / num_models - 0.5
    return bins.centres + SPREAD * shift * bins.widths.min()


def _color(model: int) -> str:
    return COLORS[model % len(COLORS)]


def _style(model: int) -> dict:
    return dict(color=_color(model), marker=MARKERS[model % len(MARKERS)], ms=6)


def _draw_models(axes: Axes, report: Report, bins: Bins, kind: str) -> list[Line2D]:
    """A score of each model in each range."""
    lines = []
    for i, model in enumerate(report.models):
        scores = [row.scores[kind] for row in bins.of(model)]
        x = _beside(bins, i, len(report.models))
        style = '-' if bins.is_log else 'none'
        lines.append(_draw_values(axes, x, scores, i, linestyle=style))
    return lines


def _draw_values(
    axes: Axes, x: np.ndarray, scores: Sequence[Score], model: int, **options
) -> Line2D:
    """Scores at x with whiskers; a line breaks where there is none."""
    values = _points(score.value for score in scores)
    # Not clipped: markers at 0 lie on the axis.
    style = dict(zorder=3, lw=1.8, clip_on=False, **_style(model), **options)
    (line,) = axes.plot(x, values, **style)
    if all(score.interval for score in scores):
        bounds = zip(*(score.interval for score in scores), strict=True)
        axes.vlines(x, *map(_points, bounds), color=_color(model), lw=4, alpha=0.35)
    return line


def _draw_coco(axes: Axes, rows: Sequence[SizeRow], bins: Bins, color: str) -> None:
    """AP of small, medium and large objects, as lines as long as their ranges."""
    left, right = bins.edges[0][0], bins.edges[-1][1]
    for row in rows[1:4]:
        low, high = (side and log2(side) for side in row.size.sides)
        ends = max(low or left, left), min(high or right, right)
        ap = row.scores['AP'].value
        if ap is not None and ends[0] < ends[1]:
            axes.hlines(100 * ap, *ends, color=color, lw=1.2, linestyle=(0, (1, 1.5)))


def _stack(figure: Figure, bins: Bins, counts: Sequence[int], noun: str) -> None:
    """Fill the last panel with bars of counts; it carries the x axis of those above it."""
    *above, last = figure.axes
    for axes in above:
        _mark_empty(axes, bins.centres, counts)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelbottom=False)
    bars = last.bar(bins.centres, counts, 0.7 * bins.widths, color='#b9b9b9')
    last.bar_label(bars, [f'{count:,}' for count in counts], padding=2, fontsize=8)
    last.margins(y=0.25)
    last.set_ylabel(noun)
    last.yaxis.set_major_formatter('{x:,.0f}')
    for axes in figure.axes:
        _dress(axes, bins)
    last.set_xlabel(bins.label)


def _mark_empty(
    axes: Axes, centres: np.ndarray, counts: Sequence[int], rotation: float = 0
) -> None:
    style = dict(ha='center', va='bottom', fontsize=8, color=GREY, rotation=rotation)
    for x, count in zip(centres, counts, strict=True):
        if not count:
            axes.text(x, 0.03, MISSING, transform=axes.get_xaxis_transform(), **style)


def _legend(figure: Figure, handles: Sequence, names: Sequence[str]) -> None:
    """Above all panels: inside, it would hide values."""
    columns = 3 if max(map(len, names)) < 30 else 1
    place = dict(loc='outside upper left', ncols=columns, frameon=False, fontsize=9)
    legend = figure.legend(handles, names, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _describe(report: DetectionReport) -> str:
    truth = report.ground_truth
    name = PurePath(truth.path).name
    return f'{name}: {truth.num_images:,} images, {truth.num_objects:,} objects'


def _caption(
    figure: Figure, report: Report, subject: str, note: str = '', has_intervals: bool = True
) -> None:
    """Below all panels: what was evaluated, and what the marks mean."""
    intervals, bootstrap = '', report.bootstrap
    if bootstrap and has_intervals:
        intervals = (
            f'pale bars: {100 * bootstrap.confidence:g} % intervals, '
            f'{bootstrap.num_resamples:,} resamples of the images'
        )
    caption = '; '.join(filter(None, [subject, intervals, note]))
    lines = wrap(caption, int(figure.get_figwidth() * LETTERS_PER_INCH))
    text = figure.supxlabel('\n'.join(lines), x=0.01, ha='left', fontsize=8, color=GREY)
    text.set_parse_math(False)


def _dress(axes: Axes, bins: Bins) -> None:
    """Names at the middle of each bin, and lines between them."""
    axes.set_xticks(bins.centres, bins.names, fontsize=8, parse_math=False)
    ends = sorted({x for edges in bins.edges for x in edges})
    axes.set_xlim(ends[0], ends[-1])
    for x in ends[1:-1]:
        axes.axvline(x, color='#e3e3e3', lw=0.8, zorder=0)
    _quieten(axes)


def _quieten(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis='y', alpha=0.3)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[['top', 'right', 'left']].set_visible(False)
