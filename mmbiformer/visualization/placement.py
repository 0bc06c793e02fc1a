"""Where a pixel of an image is in what a model sees of it, and back."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmbiformer.errors import UserError


class Placement(NamedTuple):
    """How an image was scaled, flipped, cropped and moved: x of the input is scale * x + shift.

    Coordinates are continuous, x before y; the first pixel reaches from 0 to 1.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """A place of the image in the model's input."""
        return self.scale[0] * x + self.shift[0], self.scale[1] * y + self.shift[1]

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """A place of the model's input in the image."""
        return (x - self.shift[0]) / self.scale[0], (y - self.shift[1]) / self.scale[1]


def find_placement(place: Callable[[Tensor], Tensor], height: int, width: int) -> Placement:
    """Find out how a pipeline places images of a size, by an image of coordinates.

    No step needs to say what it does, and a crop leaves no word of itself in the results.

    Args:
        place (Callable): Maps values (H, W, 3) to what a model gets of them, (3, H', W').
        height, width (int): H and W.

    Raises:
        UserError: If rows and columns do not stay rows and columns, as in a rotation.
    """
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5).unsqueeze(1).expand(height, width)
    seen = place(torch.stack([x, y, torch.ones_like(x)], dim=-1).float()).double()
    # Padding has no ones, and near the border coordinates are interpolated with nothing.
    is_image = (seen[2] - 1).abs() < 1e-3
    for axis, size in enumerate((width, height)):
        is_image &= (seen[axis] > 0.1 * size) & (seen[axis] < 0.9 * size)
    rows, columns = (is_image.any(1).nonzero().flatten(), is_image.any(0).nonzero().flatten())
    if len(rows) < 2 or len(columns) < 2:
        raise UserError(f'an image of {width} x {height} pixels is too small or long to be placed')
    inner = seen[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    lines = [_fit(columns, inner[0].mean(0)), _fit(rows, inner[1].mean(1))]
    placement = Placement(*zip(*lines, strict=True))
    ends = [
        (i, j, inner[:, i, j].tolist()) for i in (0, len(rows) - 1) for j in (0, len(columns) - 1)
    ]
    for i, j, (x_there, y_there, _) in ends:
        found = placement.to_input(x_there, y_there)
        meant = columns[j].item() + 0.5, rows[i].item() + 0.5
        distances = [abs(a - b) for a, b in zip(found, meant, strict=True)]
        if not all(x < 1 for x in distances):  # it may be nan
            raise UserError('the test pipeline turns images, so places in them cannot be found')
    return placement


def _fit(places: Tensor, coordinates: Tensor) -> tuple[float, float]:
    """Scale and shift from coordinates in the image to places in the input."""
    inner = places.double() + 0.5
    a, b = coordinates - coordinates.mean(), inner - inner.mean()
    scale = ((a * b).sum() / (a * a).sum()).item()
    return scale, (inner.mean() - scale * coordinates.mean()).item()


def find_stride(input_size: int, map_size: int) -> float:
    """How many pixels of the input a token of a map is wide.

    Layers halve sizes and round up or down; where none of these ways leads to the size of the map,
    it is the quotient.
    """
    strides = [2**i for i in range(8)]
    for rounded in (math.ceil, math.floor):
        for stride in strides:
            if map_size == rounded(input_size / stride):
                return stride
    return input_size / map_size
