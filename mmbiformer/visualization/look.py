"""A model's routing on an image file, in coordinates of the image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmbiformer.engine.images import ImagePipeline
from mmbiformer.errors import UserError

from .capture import RoutedMap, capture_routing
from .placement import Placement, find_placement, find_stride

Box = tuple[float, float, float, float]


@dataclass
class PlacedMap:
    """A routed map of one image, and where its tokens and regions are in the image.

    Attributes:
        routed (RoutedMap): Of a batch of one.
        placement (Placement): Of the image in the model's input.
        stride (tuple[float, float]): Width and height of a token in pixels of the input.
        image_size (tuple[int, int]): Height and width of the image.
    """

    routed: RoutedMap
    placement: Placement
    stride: tuple[float, float]
    image_size: tuple[int, int]

    @property
    def name(self) -> str:
        """Of the module."""
        return self.routed.name

    def token_at(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the token that a pixel of the image is in.

        Raises:
            UserError: If the image has no such pixel, or the model does not see it.
        """
        height, width = self.image_size
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f'({x:g}, {y:g}) is outside of the image, which is {width} x {height} (width x '
                'height): choose a pixel within it'
            )
        place = self.placement.to_input(x, y)
        column, row = (int(a // b) for a, b in zip(place, self.stride, strict=True))
        rows, columns = self.routed.size
        if not (0 <= row < rows and 0 <= column < columns):
            raise UserError(f'({x:g}, {y:g}) is cropped away by the test pipeline: choose another')
        return row, column

    def box_of(self, region: int) -> Box:
        """Left, top, right and bottom of a region in the image, beyond it where padding is."""
        h, w = self.routed.partition.region
        row, column = divmod(region, self.routed.partition_factor)
        return self._box(row * h, column * w, (row + 1) * h, (column + 1) * w)

    @property
    def extent(self) -> Box:
        """Left, top, right and bottom of the whole map in the image."""
        return self._box(0, 0, *self.routed.size)

    def in_degree(self) -> Tensor:
        """By how many real regions each region is chosen, (S, S)."""
        s = self.routed.partition_factor
        rows, columns = self.routed.partition.real_shape
        chosen = self.routed.indices[0].view(s, s, -1)[:rows, :columns]
        return torch.bincount(chosen.flatten(), minlength=s * s).view(s, s)

    def _box(self, top: float, left: float, bottom: float, right: float) -> Box:
        (w, h), to_image = self.stride, self.placement.to_image
        (x0, y0), (x1, y1) = to_image(left * w, top * h), to_image(right * w, bottom * h)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@dataclass
class Look:
    """An image and what a model routes in it.

    Attributes:
        image (np.ndarray): uint8 (H, W, 3), red first.
        maps (list[PlacedMap]): In the order of the calls.
        prediction: The data sample that the model gave.
    """

    image: np.ndarray
    maps: list[PlacedMap]
    prediction: object


def look_at(
    model: nn.Module, pipeline: ImagePipeline, path: str, names: list[str] | None = None
) -> Look:
    """Run a model on an image file and capture what it routes.

    A segmenter that goes over an image in windows takes it as a whole here.

    Args:
        model (nn.Module): From :func:`mmbiformer.engine.load_model`.
        pipeline (ImagePipeline): Of the same config.
        path (str): An image file.
        names (list[str], optional): Modules to look into, all by default.

    Raises:
        UserError: If the file is no image, or the model has no such routed attention.
    """
    image, data = pipeline.prepare(path)
    if (getattr(model, 'test_cfg', None) or {}).get('mode') == 'slide':
        model.test_cfg.mode = 'whole'
    with torch.no_grad():
        seen = model.data_preprocessor(data, False)['inputs'].shape[-2:]
        try:
            with capture_routing(model, names) as captured:
                (prediction,) = model.test_step(data)
        except ValueError as error:
            raise UserError(str(error)) from error
    height, width = image.shape[:2]
    placement = find_placement(pipeline.place, height, width)
    maps = []
    for routed in captured:
        down, across = (find_stride(a, b) for a, b in zip(seen, routed.size, strict=True))
        maps.append(PlacedMap(routed, placement, (across, down), (height, width)))
    return Look(image[..., ::-1], maps, prediction)
