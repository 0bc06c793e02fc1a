"""Pictures of what runs logged: a panel for each quantity, a colour for each run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbiformer.evaluation.report.size_pictures import COLORS, MARKERS
from mmbiformer.figures import new_figure

from .records import RunRecord
from .scores import Scores, by_class, by_size, known, overall_names

COLUMNS = 3
MOST_PANELS, MOST_CLASSES = 12, 40
MOST_POINTS = 1000  # of a curve: more are averaged, and the page stays small
FIRST = ('loss', 'lr', 'grad_norm')
OF_SPEED = ('time', 'data_time', 'memory')
NOT_CURVES = {'base_lr', 'epoch', 'iter', 'step', *OF_SPEED}
UNITS = dict(time='time, s per iteration', data_time='waiting for data, s per iteration')
UNITS['memory'] = 'peak memory of the GPU, MB'


@dataclass
class Picture:
    """A figure and what is said of it.

    Attributes:
        figure (Figure): To be drawn.
        caption (str): Below it.
        alt (str): For those who do not see it.
    """

    figure: Figure
    caption: str
    alt: str


def draw_training(runs: Sequence[RunRecord]) -> Picture | None:
    """Losses, learning rate and norms of gradients over iterations; None before the first."""
    names = _logged(runs)
    rest = [name for name in names if name not in (*FIRST, *NOT_CURVES)]
    shown = [name for name in FIRST if name in names] + rest
    return _draw_logged(runs, shown, 'Loss, learning rate and what else the training logged')


def draw_speed(runs: Sequence[RunRecord]) -> Picture | None:
    """Seconds per iteration, those of them that waited for data, and memory of the GPU."""
    names = _logged(runs)
    return _draw_logged(runs, [x for x in OF_SPEED if x in names], 'Speed and memory')


def draw_metrics(runs: Sequence[RunRecord]) -> Picture | None:
    """Metrics of all sizes and classes, validation by validation; None before the first."""
    names = [x for x in overall_names(runs) if any(_points_of(run, x) for run in runs)]
    if not names:
        return None
    units = list(dict.fromkeys(run.unit for run in runs if run.validations))
    figure, panels = _panels(min(len(names), MOST_PANELS))
    for axes, name in zip(panels, names, strict=False):
        for i, run in enumerate(runs):
            points = _points_of(run, name)
            if points:
                axes.plot(*zip(*points, strict=True), **_style(i), ms=5, lw=1.6)
        _dress(axes, name, ' or '.join(units))
    _legend(figure, panels, runs)
    left_out = _left_out(names)
    return Picture(
        figure,
        f'Metrics of the validations, as they are logged{left_out}.',
        f'Curves of {", ".join(names[:MOST_PANELS])}; the table below has their last values',
    )


def draw_sizes(runs: Sequence[RunRecord]) -> Picture | None:
    """A score of the last evaluation against the size; None where none is logged."""
    scores = [by_size(run) for run in runs]
    kinds = _keys(scores)
    if not kinds:
        return None
    figure, panels = _panels(len(kinds), columns=min(2, len(kinds)))
    for axes, kind in zip(panels, kinds, strict=True):
        _draw_bars(axes, [x.get(kind, {}) for x in scores])
        _dress(axes, kind, 'size of objects')
    _legend(figure, panels, runs)
    caption = 'Scores of the last evaluation by size; a gap is a size without objects.'
    return Picture(figure, caption, f'{caption} The table below has the values')


def draw_classes(runs: Sequence[RunRecord]) -> Picture | None:
    """The first score of each class, the lowest on top; None where none is logged."""
    scores = [by_class(run) for run in runs]
    kind = next(iter(_keys(scores)), None)
    if kind is None:
        return None
    values = [x.get(kind, {}) for x in scores]
    lowest: dict[str, float] = {}
    for one in values:
        for name, value in one.items():
            if value is not None:
                lowest[name] = min(value, lowest.get(name, value))
    names = sorted(lowest, key=lowest.get)
    shown = names[:MOST_CLASSES]
    figure, [axes] = new_figure((9, 1.2 + 0.24 * len(shown)))
    for i, one in enumerate(values):
        at = [(one[x], y) for y, x in enumerate(shown) if one.get(x) is not None]
        if at:
            style = dict(_style(i), ms=6, linestyle='none', clip_on=False)
            axes.plot(*zip(*at, strict=True), **style)
    axes.set_yticks(range(len(shown)), shown, fontsize=8, parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    _quieten(axes, 'both')
    axes.set_xlabel(kind, fontsize=9)
    _legend(figure, [axes], runs)
    which = f'the {MOST_CLASSES} lowest of {len(names)}' if len(names) > MOST_CLASSES else 'all'
    caption = f'{kind} of {which} classes in the last evaluation, the lowest on top.'
    return Picture(figure, caption, f'{caption} The table below has the values')


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most `MOST_POINTS`: means of neighbours where there are more."""
    if len(x) <= MOST_POINTS:
        return x, y
    parts = (np.array_split(values, MOST_POINTS) for values in (x, y))
    return tuple(np.array([part.mean() for part in values]) for values in parts)


def _draw_logged(runs: Sequence[RunRecord], names: list[str], what: str) -> Picture | None:
    if not names:
        return None
    figure, panels = _panels(min(len(names), MOST_PANELS))
    for axes, name in zip(panels, names, strict=False):
        for i, run in enumerate(runs):
            points = [(x['step'], x[name]) for x in run.training if name in x]
            if points:
                x, y = thin(*np.array(points, float).T)
                marker = _style(i)['marker'] if len(x) == 1 else ''
                axes.plot(x, y, color=_style(i)['color'], marker=marker, lw=1.3)
            for join in run.joins if len(runs) == 1 else ():
                axes.axvline(join, color='#6b6b6b', lw=0.8, linestyle=(0, (2, 2)), zorder=0)
        _dress(axes, UNITS.get(name, name), 'iteration')
    _legend(figure, panels, runs)
    joined = len(runs) == 1 and runs[0].joins
    note = '; dashed where the run was resumed' if joined else ''
    caption = f'{what}, as means over the iterations between two lines of the log'
    alt = f'Curves of {", ".join(names[:MOST_PANELS])} over iterations'
    return Picture(figure, f'{caption}{note}{_left_out(names)}.', alt)


def _draw_bars(axes: Axes, scores: Sequence[dict[str, float | None]]) -> None:
    sizes = list(dict.fromkeys(size for one in scores for size in one))
    width = 0.8 / len(scores)
    for i, one in enumerate(scores):
        x = np.arange(len(sizes)) + (i - (len(scores) - 1) / 2) * width
        heights = [np.nan if one.get(size) is None else one[size] for size in sizes]
        bars = axes.bar(x, heights, width, color=_style(i)['color'])
        if len(scores) == 1:
            labels = ['' if np.isnan(x) else f'{x:.3g}' for x in heights]
            axes.bar_label(bars, labels, padding=2, fontsize=8)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    turn = 90 if len(sizes) > 6 else 0
    axes.set_xticks(range(len(sizes)), sizes, rotation=turn, fontsize=8, parse_math=False)


def _logged(runs: Sequence[RunRecord]) -> list[str]:
    rows = (row for run in runs for row in run.training)
    return list(dict.fromkeys(name for row in rows for name in row))


def _points_of(run: RunRecord, name: str) -> list[tuple[int, float]]:
    points = ((x.step, known(x.metrics.get(name))) for x in run.validations)
    return [(step, value) for step, value in points if value is not None]


def _keys(scores: Sequence[Scores]) -> list[str]:
    return list(dict.fromkeys(key for one in scores for key in one))


def _left_out(names: list[str]) -> str:
    more = len(names) - MOST_PANELS
    return f'; {more} further quantities are in the log alone' if more > 0 else ''


def _panels(number: int, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    columns = min(columns, number)
    rows = -(-number // columns)
    width = 12 if columns == COLUMNS else 9
    figure, panels = new_figure((width, 0.5 + 2.5 * rows), rows, columns)
    for axes in panels[number:]:
        axes.set_axis_off()
    return figure, panels[:number]


def _style(run: int) -> dict:
    return dict(color=COLORS[run % len(COLORS)], marker=MARKERS[run % len(MARKERS)])


def _legend(figure: Figure, panels: Sequence[Axes], runs: Sequence[RunRecord]) -> None:
    """Above all panels, where there are several runs."""
    if len(runs) == 1:
        return
    handles = [panels[0].plot([], [], **_style(i))[0] for i in range(len(runs))]
    legend = figure.legend(
        *(handles, [run.name for run in runs]), loc='outside upper left', ncols=2, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _dress(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc='left', fontsize=10, parse_math=False)
    axes.set_xlabel(label, fontsize=8)
    if axes.lines:  # epochs and iterations are whole; bars have names
        axes.xaxis.set_major_locator(MaxNLocator('auto', integer=True, min_n_ticks=1))
    _quieten(axes, 'y')


def _quieten(axes: Axes, grid: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.3)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[['top', 'right', 'left']].set_visible(False)
