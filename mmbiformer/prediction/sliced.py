"""Sliced inference by SAHI: small objects of large images, seen at their own scale."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmengine.logging import print_log
from mmengine.structures import InstanceData

from mmbiformer.datasets.image_files import load_image
from mmbiformer.errors import UserError

try:
    from sahi.models.mmdet import MmdetDetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import PredictionResult
except ModuleNotFoundError as error:
    raise UserError(
        f"--sliced needs {error.name}, which is not installed: pip install -e '.[sahi]'"
    ) from error


class SliceDetector(MmdetDetectionModel):
    """SAHI's model around an inferencer that is there already, with slices in batches."""

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Predict on slices (H, W, 3) of one size, red first."""
        turned = [np.ascontiguousarray(x[..., ::-1]) for x in images]
        found = self.model(turned, batch_size=len(turned))
        self._original_predictions = found['predictions']

    def perform_inference(self, image: np.ndarray) -> None:
        """Predict on a whole image (H, W, 3), red first."""
        self.perform_batch_inference([image])

    @property
    def has_mask(self) -> bool:
        """Boxes alone: SAHI's outlines of masks move boxes, and fail for masks of few pixels."""
        return False


class SlicedInference:
    """A detector that goes over slices of an image, and over the whole.

    Slices overlap by a fifth, as SAHI's do by default, and what is found twice is dropped by NMS.
    Of what finds boxes and masks, they give the boxes.

    Args:
        inferencer (DetInferencer): With its weights.
        side (int): Of a slice, in pixels of the image.
    """

    def __init__(self, inferencer: DetInferencer, side: int) -> None:
        self.side = side
        if inferencer.model.with_mask:
            print_log('--sliced gives boxes, and no masks', 'current', logging.WARNING)
        device = str(next(inferencer.model.parameters()).device)
        # All that the detector gives counts: scores decide when AP is computed or boxes are drawn.
        self.model = SliceDetector(model=inferencer, confidence_threshold=0.0, device=device)

    def predict(self, images: Sequence[str | np.ndarray], batch_size: int) -> list[DetDataSample]:
        """Data samples of images: files, or arrays (H, W, 3) with blue first.

        Args:
            images (Sequence[str | np.ndarray]): Of any size; one smaller than a slice is whole.
            batch_size (int): Slices in a batch.
        """
        return [self._predict(x, batch_size) for x in images]

    def _predict(self, image: str | np.ndarray, batch_size: int) -> DetDataSample:
        image = load_image(image) if isinstance(image, str) else image
        found = get_sliced_prediction(
            np.ascontiguousarray(image[..., ::-1]),
            self.model,
            slice_height=self.side,
            slice_width=self.side,
            postprocess_type='NMS',
            postprocess_match_metric='IOU',
            batch_size=batch_size,
            verbose=0,
        )
        return _sample_of(found, image.shape[:2])


def _sample_of(found: PredictionResult, size: tuple[int, int]) -> DetDataSample:
    objects = sorted(found.object_prediction_list, key=lambda x: -x.score.value)
    instances = InstanceData(
        bboxes=torch.tensor([x.bbox.to_xyxy() for x in objects]).float().view(-1, 4),
        scores=torch.tensor([x.score.value for x in objects]),
        labels=torch.tensor([x.category.id for x in objects], dtype=torch.long),
    )
    return DetDataSample(pred_instances=instances, metainfo=dict(ori_shape=size))


# "ignoring invalid prediction", for every box without an area at the border of an image.
logging.getLogger('sahi').setLevel(logging.ERROR)
