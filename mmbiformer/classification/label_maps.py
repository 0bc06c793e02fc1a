"""Label maps beside images: loading them, and cropping and flipping both alike."""

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform, RandomFlip
from mmpretrain.datasets.transforms import RandomResizedCrop
from torch import nn

from mmbiformer.errors import UserError


class LoadLabelMap(BaseTransform):
    """Read the label map of an image: ``<folder>/<class folder>/<name of the image>.npz``.

    A file has ``scores`` and ``classes``, each (K, h, w): the K best classes of each part of the
    whole image, and their probabilities, which are scaled to the sum 1. Adds ``label_map``, a
    tensor (num_classes, h, w).

    Args:
        folder (str): Folder of the label maps.
        num_classes (int): Number of classes.
    """

    def __init__(self, folder: str, num_classes: int) -> None:
        self.folder = Path(folder)
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        image = Path(results['img_path'])
        path = self.folder / image.parent.name / f'{image.stem}.npz'
        if not path.is_file():
            raise UserError(
                f"label map '{path}' of '{image}' not found: check folder of LoadLabelMap"
            )
        try:
            with np.load(path) as file:
                scores = torch.from_numpy(file['scores']).float()
                classes = torch.from_numpy(file['classes']).long()
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"label map '{path}' cannot be read: {error}") from error
        fits = scores.ndim == 3 and scores.shape == classes.shape and (scores >= 0).all()
        if not fits or not ((classes >= 0) & (classes < self.num_classes)).all():
            raise UserError(
                f"label map '{path}' must have scores, 0 or more, and classes below "
                f'{self.num_classes}, both (K, h, w)'
            )
        dense = torch.zeros(self.num_classes, *scores.shape[1:])
        dense.scatter_add_(0, classes, scores / scores.sum(0).clamp_min(1e-12))
        results['label_map'] = dense
        return results


class RandomResizedCropWithLabelMap(RandomResizedCrop):
    """mmpretrain's, which also cuts the same part out of the label map.

    Args:
        map_size (int): Height and width that the label map is given, in tokens of the last stage.
        options: Those of mmpretrain's ``RandomResizedCrop``.
    """

    def __init__(self, map_size: int, **options: object) -> None:
        super().__init__(**options)
        self.map_size = map_size

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        self._crop = super().rand_crop_params(img)
        return self._crop

    def transform(self, results: dict) -> dict:
        size = results['img'].shape[:2]
        results = super().transform(results)
        top, left, height, width = self._crop
        # Where the middles of the tokens lie in the whole image, from -1 to 1.
        middles = (torch.arange(self.map_size) + 0.5) / self.map_size
        y = 2 * (top + middles * height) / size[0] - 1
        x = 2 * (left + middles * width) / size[1] - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1)
        results['label_map'] = nn.functional.grid_sample(
            results['label_map'][None], grid[None], padding_mode='border', align_corners=False
        )[0]
        return results


class RandomFlipWithLabelMap(RandomFlip):
    """mmcv's, which also flips the label map."""

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        dims = {'horizontal': [2], 'vertical': [1], 'diagonal': [1, 2]}
        results['label_map'] = results['label_map'].flip(dims[results['flip_direction']])
