"""A trained model that takes images: files or arrays."""

import warnings
from collections.abc import Sequence

import numpy as np

from mmbiformer.engine import load_config
from mmbiformer.errors import UserError

from .inferencers import build_inferencer, infer

SCORE_THRESHOLD = 0.3  # that of mm's inferencers


class Predictor:
    """A trained detector or segmenter.

    Args:
        config (str): Its config file.
        checkpoint (str): Of the whole model; every name and shape must fit.
        device (str, optional): As 'cuda:1'. Defaults to the accelerator, or the CPU without one.
        slice_side (int, optional): Cut images into slices of this side in pixels, predict on each
            and on the whole image, and merge, by SAHI (Akyon et al., ICIP 2022). For detectors.

    Attributes:
        task (str): 'detection' or 'segmentation'.
        metainfo (dict): ``classes``, ``palette``, and ``reduce_zero_label`` of label maps.

    Raises:
        UserError: If a file is missing or does not fit, or the model can do no such thing.

    Example:
        >>> predictor = Predictor('retinanet.py', 'epoch_12.pth')
        >>> prediction = predictor('street.jpg')
        >>> prediction.pred_instances.bboxes  # of a segmenter, prediction.pred_sem_seg.data
    """

    def __init__(
        self,
        config: str,
        checkpoint: str,
        device: str | None = None,
        slice_side: int | None = None,
    ) -> None:
        cfg = load_config(config)
        self.task = 'segmentation' if cfg.get('default_scope') == 'mmseg' else 'detection'
        if slice_side and self.task == 'segmentation':
            raise UserError('--sliced is for detectors: a segmenter has test_cfg.mode="slide"')
        if slice_side:  # SAHI may be missing: said before the model is built
            from .sliced import SlicedInference
        self.inferencer = build_inferencer(cfg, checkpoint, device)
        self.metainfo = self.inferencer.model.dataset_meta
        self._sliced = SlicedInference(self.inferencer, slice_side) if slice_side else None

    def __call__(self, image: str | np.ndarray) -> object:
        """mm's data sample of one image: a file, or an array (H, W, 3) with blue first."""
        return self.predict([image])[0]

    def predict(self, images: Sequence[str | np.ndarray], batch_size: int = 1) -> list:
        """mm's data samples of images: files, or arrays (H, W, 3) with blue first.

        Images of several sizes in one batch are padded to the largest, which changes what regions
        a routed attention has, and a segmenter takes none such.
        """
        if self._sliced:
            return self._sliced.predict(images, batch_size)
        return infer(self.inferencer, images, batch_size)

    def draw(
        self, image: np.ndarray, prediction: object, score_threshold: float = SCORE_THRESHOLD
    ) -> np.ndarray:
        """A prediction drawn on its image, in the look of mm's pictures.

        Args:
            image (np.ndarray): uint8 (H, W, 3), blue first.
            prediction: Its data sample.
            score_threshold (float): Draw what scores more. Segments have no score.

        Returns:
            np.ndarray: Like ``image``.
        """
        visualizer = self.inferencer.visualizer
        # The visualizers draw in colours with red first, and mm's inferencers hand them arrays
        # as they are, whose blue would become red.
        options = dict(draw_gt=False)
        if self.task == 'detection':
            options['pred_score_thr'] = score_threshold
        else:
            prediction = prediction.numpy()  # mmseg takes a tensor of one pixel for an index
        rgb = np.ascontiguousarray(image[..., ::-1])
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Warning: The (bbox|polygon) is out of bounds')
            visualizer.add_datasample('prediction', rgb, prediction, **options)
        return np.ascontiguousarray(visualizer.get_image()[..., ::-1])
