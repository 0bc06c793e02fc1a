"""Pictures of routing: what a query attends to, and how often regions are chosen."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmbiformer.figures import new_figure

from .look import Look, PlacedMap

# Both grow evenly in lightness, and are told apart by all who see colours differently.
OF_AFFINITY, OF_ATTENTION = 'viridis', 'magma'
QUERY = '#ffffff'
PANEL = 4.6  # inches
MOST_NUMBERS = 16


def draw_query(look: Look, maps: Sequence[PlacedMap], x: float, y: float) -> Figure:
    """For each map a row: the regions that a pixel's region routes to, and its attention.

    Args:
        look (Look): The image.
        maps (Sequence[PlacedMap]): Some of its maps.
        x, y (float): The pixel.

    Raises:
        UserError: If the image has no such pixel, or the model does not see it.
    """
    figure, axes = _panels(look, len(maps), 2)
    for row, placed in enumerate(maps):
        _draw_regions(axes[2 * row], look, placed, x, y)
        _draw_attention(figure, axes[2 * row + 1], look, placed, x, y)
    return figure


def draw_in_degrees(look: Look, maps: Sequence[PlacedMap]) -> Figure:
    """For each map how many regions route to each region."""
    columns = min(len(maps), 3)
    figure, axes = _panels(look, -(-len(maps) // columns), columns)
    for axis, placed in zip(axes, maps, strict=False):
        _show_photo(axis, look)
        degrees = placed.in_degree().numpy()
        left, top, _, _ = placed.box_of(0)
        _, _, right, bottom = placed.box_of(placed.routed.partition_factor**2 - 1)
        colours = axis.imshow(
            degrees, cmap=OF_AFFINITY, alpha=0.65, extent=(left, right, bottom, top), vmin=0
        )
        figure.colorbar(colours, ax=axis, shrink=0.75, label='regions that route to it')
        _finish(axis, look, f'{placed.name}: how often regions are chosen')
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    return figure


def _draw_regions(axis: Axes, look: Look, placed: PlacedMap, x: float, y: float) -> None:
    routed = placed.routed
    region = routed.region_of(*placed.token_at(x, y))
    chosen = routed.indices[0, region].tolist()
    affinity = routed.affinity[0, region].tolist()
    _show_photo(axis, look)
    values = [affinity[i] for i in chosen]
    scale = Normalize(min(values), max(values) + 1e-12)
    colours = colormaps[OF_AFFINITY]
    for rank, number in reversed(list(enumerate(chosen, 1))):
        left, top, right, bottom = placed.box_of(number)
        colour = colours(scale(affinity[number]))
        size = right - left, bottom - top
        axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor='black', linewidth=4))
        axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=colour, linewidth=2.2))
        if len(chosen) <= MOST_NUMBERS:
            axis.text(
                *(left + 0.5 * size[0], top + 0.5 * size[1], f'{rank}\n{affinity[number]:.3g}'),
                color='white',
                fontsize=7,
                ha='center',
                va='center',
                clip_on=True,
                bbox=dict(facecolor='black', alpha=0.6, pad=1.2, linewidth=0),
            )
    left, top, right, bottom = placed.box_of(region)
    axis.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=QUERY,
            linewidth=1.6,
            linestyle='--',
        )
    )
    _mark(axis, x, y)
    _finish(axis, look, f'{placed.name}: {len(chosen)} of {len(affinity)} regions')


def _draw_attention(
    figure: Figure, axis: Axes, look: Look, placed: PlacedMap, x: float, y: float
) -> None:
    weights, padding = placed.routed.attention(*placed.token_at(x, y))
    heat = 100 * weights.mean(0).numpy()
    _show_photo(axis, look, dimmed=True)
    left, top, right, bottom = placed.extent
    seen = np.ma.masked_equal(heat, 0)
    colours = axis.imshow(
        seen, cmap=OF_ATTENTION, alpha=0.85, extent=(left, right, bottom, top), vmin=0
    )
    figure.colorbar(colours, ax=axis, shrink=0.75, label='% of its attention, by token')
    _mark(axis, x, y)
    on_padding = 100 * padding.mean().item()
    heads = f'mean of {len(weights)} heads' if len(weights) > 1 else 'of one head'
    text = f'{placed.name}: attention, {heads}'
    _finish(axis, look, text + (f'; {on_padding:.0f} % on padding' if on_padding >= 0.5 else ''))


def _panels(look: Look, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    height, width = look.image.shape[:2]
    shape = min(max(height / width, 0.4), 1.6)
    return new_figure((columns * (PANEL + 0.8), rows * (PANEL * shape + 0.5)), rows, columns)


def _show_photo(axis: Axes, look: Look, dimmed: bool = False) -> None:
    """The image without its colours, which would be taken for those of the map."""
    grey = look.image.mean(-1)
    if dimmed:
        grey = 0.5 * grey
    height, width = grey.shape
    axis.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0))


def _mark(axis: Axes, x: float, y: float) -> None:
    """The query, in white on black, to be seen on anything."""
    axis.plot(x, y, '+', color='black', markersize=15, markeredgewidth=4)
    axis.plot(x, y, '+', color=QUERY, markersize=13, markeredgewidth=2)


def _finish(axis: Axes, look: Look, title: str) -> None:
    height, width = look.image.shape[:2]
    axis.set(xlim=(0, width), ylim=(height, 0), aspect='equal')
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
