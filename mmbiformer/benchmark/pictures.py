"""Pictures of what was measured."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from mmbiformer.figures import new_figure
from mmbiformer.files import whole_or_absent
from mmbiformer.tables import MISSING

from .cases import OFFICIAL, OFFICIAL_STYLE, PLAIN, RIVALS, TUTORIAL_STYLE
from .groups import Row
from .growth import PAPER_EXPONENTS, PARTS, Curves, exponents
from .report import megabytes, milliseconds

YARDSTICK, RIVAL, OURS = '#9a9a9a', '#d9a441', '#2f6db5'
ROW_HEIGHT = 0.32  # inches
LETTERS_PER_INCH = 15  # of the caption


def draw_groups(groups: Sequence[list[Row]], caption: str, path: Path) -> None:
    """Bars of time, with the spread, and of peak memory; one line of panels per group."""
    heights = [len(rows) + 2 for rows in groups]
    size = (11, ROW_HEIGHT * sum(heights) + 0.6)
    figure, axes = new_figure(size, len(groups), 2, gridspec_kw=dict(height_ratios=heights))
    for rows, left, right in zip(groups, axes[::2], axes[1::2], strict=True):
        left.set_title(rows[0].case.title, loc='left', fontsize=9)
        times = [(row.seconds or 0) * 1e3 for row in rows]
        samples = [[x * 1e3 for x in row.samples] or [0] for row in rows]
        below = [time - min(x) for time, x in zip(times, samples, strict=True)]
        above = [max(x) - time for time, x in zip(times, samples, strict=True)]
        labels = [milliseconds(row.seconds) for row in rows]
        _bars(left, rows, times, labels, xerr=(below, above))
        left.set_xlabel('ms per step (bar: median, line: min to max)', fontsize=8)
        peaks = [(row.peak_bytes or 0) / 1e6 for row in rows]
        labels = [MISSING if row.peak_bytes is None else megabytes(row.peak_bytes) for row in rows]
        _bars(right, rows, peaks, labels)
        right.set_xlabel('peak memory over model and inputs, MB', fontsize=8)
    _save(figure, caption, path)


def _save(figure: Figure, caption: str, path: Path) -> None:
    """Write a PNG with machine, date and command above the panels, in as many lines as need be."""
    letters = int(figure.get_figwidth() * LETTERS_PER_INCH)
    figure.suptitle('\n'.join(wrap(caption, letters)), fontsize=8, color='#555555')
    with whole_or_absent(path) as unfinished:
        figure.savefig(unfinished, dpi=130)


def _bars(axes: Axes, rows: list[Row], values: list[float], labels: list[str], **options) -> None:
    names = [row.case.row for row in rows]
    colors, caps = [_color(row.case.model) for row in rows], dict(lw=1, capsize=2)
    bars = axes.barh(names, values, color=colors, error_kw=caps, **options)
    axes.bar_label(bars, labels, padding=6, fontsize=8)
    axes.invert_yaxis()  # the first row on top
    axes.margins(x=0.16)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)


def _color(model: str) -> str:
    if model == OFFICIAL or model.endswith((TUTORIAL_STYLE, OFFICIAL_STYLE)):
        return YARDSTICK
    return RIVAL if model in (*RIVALS, PLAIN) else OURS


def draw_growth(curves: Curves, caption: str, path: Path) -> None:
    """Time against pixels, one panel per part, with fitted exponents and the paper's slopes."""
    figure, panels = new_figure((12, 4.2), num_columns=len(PARTS))
    fits = exponents(curves, lambda point: point.seconds)
    for part, axes in zip(PARTS, panels, strict=True):
        axes.set(xscale='log', yscale='log')
        for rule, color in (('scaled', OURS), ('fixed', RIVAL)):
            if (rule, part) not in fits:
                axes.plot([], [], color=color, label=f'S {rule}: {MISSING}')
                continue
            points = curves[rule, part]
            sides = [prod(p.size) ** 0.5 for p in points]
            times = [p.seconds * 1e3 for p in points]
            label = f'S {rule}: e = {fits[rule, part]:.2f}'
            axes.plot(sides, times, 'o-', color=color, label=label)
            axes.set_xticks(sides, [f'{side:.0f}²' for side in sides])
            if part == 'attention':
                slope = PAPER_EXPONENTS[rule]
                guide = [times[-1] * (side / sides[-1]) ** (2 * slope) for side in sides]
                axes.plot(sides, guide, '--', color=color, lw=1, label=f'e = {slope:.2f} (paper)')
        axes.set_title(part, fontsize=10)
        axes.set_xlabel('pixels of the image', fontsize=8)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel('ms', fontsize=8)
    _save(figure, caption, path)
