"""Label maps beside images, as Jiang et al. publish them: loading, cropping and flipping them."""

from pathlib import Path

import numpy as np
import torch
from mmcv.ops import roi_align
from mmcv.transforms import BaseTransform, RandomFlip
from mmpretrain.datasets.transforms import RandomResizedCrop
from torch import Tensor

from mmbiformer.checkpoints import CheckpointError, read_checkpoint
from mmbiformer.errors import UserError


class LoadLabelMap(BaseTransform):
    """Read the label map of an image: ``<folder>/<class folder>/<name of the image>.pt``.

    A file is what ``generate_label.py`` of github.com/zihangJiang/TokenLabeling writes: a tensor
    (2, K, h, w) of halves, a teacher's K highest logits in each cell of the whole image, and the
    numbers of their classes. The logits of all other classes are 0, as in the authors' training.
    Adds ``label_logits``, a tensor (num_classes, h, w).

    Args:
        folder (str): Folder of the label maps.
        num_classes (int): Number of classes.
    """

    def __init__(self, folder: str, num_classes: int) -> None:
        self.folder = Path(folder)
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        image = Path(results['img_path'])
        path = self.folder / image.parent.name / f'{image.stem}.pt'
        if not path.is_file():
            raise UserError(
                f"label map '{path}' of '{image}' not found: --cfg-options "
                'train_dataloader.dataset.pipeline.1.folder=... sets the folder of LoadLabelMap'
            )
        logits, classes = self._read(path)
        dense = torch.zeros(self.num_classes, *logits.shape[1:])
        results['label_logits'] = dense.scatter_(0, classes.long(), logits)
        return results

    def _read(self, path: Path) -> Tensor:
        """Logits and classes, (2, K, h, w), float32."""
        try:
            content = read_checkpoint(path)
        except CheckpointError as error:
            raise UserError(f'label map {error}: restore it or make it again') from error
        is_map = isinstance(content, Tensor) and content.ndim == 4 and len(content) == 2
        if is_map and content.numel() and content.isfinite().all():
            content = content.float()
            classes = content[1]
            if (
                (classes >= 0) & (classes < self.num_classes) & (classes == classes.round())
            ).all():
                return content
        raise UserError(
            f"label map '{path}' must be a tensor (2, K, h, w) of finite logits and of numbers of "
            f'classes from 0 to {self.num_classes - 1}: make it again, or set num_classes of '
            'LoadLabelMap'
        )


class RandomResizedCropWithLabelMap(RandomResizedCrop):
    """mmpretrain's, which also gives each token of the cut part its probabilities of classes.

    Logits are averaged over each token by RoIAlign, then follows the softmax, as in the authors'
    training. Adds ``label_map``, a tensor (num_classes, map_size, map_size), for ``label_logits``.

    Args:
        map_size (int): Height and width of the label map, in tokens of the last stage.
        options: Those of mmpretrain's ``RandomResizedCrop``.
    """

    def __init__(self, map_size: int, **options: object) -> None:
        super().__init__(**options)
        self.map_size = map_size

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        self._crop = super().rand_crop_params(img)
        return self._crop

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        results = super().transform(results)
        logits = results.pop('label_logits')[None]
        top, left, crop_height, crop_width = self._crop
        box = logits.new_tensor([[0, left, top, left + crop_width, top + crop_height]])
        # In cells of the label map, the middle of the first one at 0.
        scale = box.new_tensor([logits.shape[3] / width, logits.shape[2] / height])
        box[:, 1:] = box[:, 1:] * scale.repeat(2) - 0.5
        # Scale 1, as many samples as cells, the mean, not aligned, as torchvision's default.
        pooled = roi_align(logits, box, self.map_size, 1.0, 0, 'avg', False)
        results['label_map'] = pooled[0].softmax(0)
        return results


class RandomFlipWithLabelMap(RandomFlip):
    """mmcv's, which also flips the label map."""

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        dims = {'horizontal': [2], 'vertical': [1], 'diagonal': [1, 2]}
        results['label_map'] = results['label_map'].flip(dims[results['flip_direction']])
