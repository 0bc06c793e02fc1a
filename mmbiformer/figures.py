"""Where every picture begins: a figure that needs no display and that nothing outlives."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def new_figure(
    size: tuple[float, float], num_rows: int = 1, num_columns: int = 1, **options
) -> tuple[Figure, list[Axes]]:
    """A white figure, made without pyplot, which would keep it.

    Args:
        size (tuple): Width and height in inches.
        num_rows, num_columns (int): Numbers of panels.
        **options: Of ``Figure.subplots``.

    Returns:
        tuple: The figure and its axes, row by row.
    """
    figure = Figure(size, layout='constrained', facecolor='white')
    axes = figure.subplots(num_rows, num_columns, squeeze=False, **options)
    return figure, list(axes.flat)
