"""COCO's evaluation over any size ranges, by faster-coco-eval.

Letters: I images, K categories, A size ranges, T IoU thresholds, G objects, D detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as mask_api

from ..sizes import COCO_RANGES, SizeRange
from .coco_files import Detections, GroundTruth, check_iou_type, check_masks

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)
# Categories at a time: the engine keeps a record of each image, category and range, empty or not.
BLOCK = 40


class Engine(COCOeval_faster):
    """faster-coco-eval on records whose ids are positions.

    Args:
        objects, detections (list[dict]): Annotations as COCO's evaluation takes them.
        images (list[dict]): With id, and for masks height and width.
        categories (Sequence[int]): Positions of those to judge.
        iou_type (str): 'bbox' or 'segm'.
        ranges (Sequence): (low, high) of areas, both inclusive.
        ious (dict, optional): (image, category) -> IoU of detections and objects, where known.
    """

    def __init__(
        self,
        objects: list[dict],
        detections: list[dict],
        images: list[dict],
        categories: Sequence[int],
        iou_type: str,
        ranges: Sequence[tuple[float, float]],
        ious: dict | None = None,
    ) -> None:
        named = [dict(id=i, name=str(i)) for i in categories]
        both = [
            COCO(dict(images=images, annotations=records, categories=named))
            for records in (objects, detections)
        ]
        super().__init__(*both, iou_type, print_function=lambda *_: None)
        self.params.maxDets = list(MAX_DETECTIONS)
        self.params.areaRng = [list(x) for x in ranges]
        self.params.areaRngLbl = [str(i) for i in range(len(ranges))]
        self._known_ious = ious

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        if self._known_ious is None:
            return super().computeIoU(imgId, catId)
        return self._known_ious[imgId, catId]


@dataclass
class Judged:
    """What is judged: detections, by a ground truth, in size ranges.

    Attributes:
        iou_type (str): 'bbox' or 'segm'.
        ranges (tuple[SizeRange]): A ranges; the first four are COCO's, relative ones come last.
        detection_areas (np.ndarray): (D, ); of masks for 'segm', else of boxes; in pixels.
    """

    ground_truth: GroundTruth
    detections: Detections
    iou_type: str
    ranges: tuple[SizeRange, ...]
    detection_areas: np.ndarray

    def sizes(self, records: GroundTruth | Detections, relative: bool) -> np.ndarray:
        """Areas of the objects or of the detections, in pixels or as fractions of their image."""
        areas = records.areas if records is self.ground_truth else self.detection_areas
        return areas / self.ground_truth.image_areas[records.image] if relative else areas


@dataclass
class SizeEvaluation(Judged):
    """Detections judged by COCO's rules, in COCO's own size ranges and in further ones.

    Attributes:
        precision (np.ndarray): (T, 101, K, A, 3), -1 where there is no object; the last axis is
            the largest number of detections per image and category: 1, 10, 100.
        recall (np.ndarray): (T, K, A, 3), likewise.
        ious (dict): (image, category) -> array (detections, objects), detections by falling score
            and at most 100 of them.
    """

    precision: np.ndarray
    recall: np.ndarray
    ious: dict

    @cached_property
    def object_in_range(self) -> np.ndarray:
        """Which objects each range counts; crowd regions in none. bool, (A, G)."""
        in_range = [x.holds(self.sizes(self.ground_truth, x.relative)) for x in self.ranges]
        return np.stack(in_range) & ~self.ground_truth.crowd

    @cached_property
    def detection_in_range(self) -> np.ndarray:
        """Which detections count as false in each range where they match nothing; (A, D)."""
        return np.stack([x.holds(self.sizes(self.detections, x.relative)) for x in self.ranges])

    @cached_property
    def detection_boxes(self) -> np.ndarray:
        """x, y, width, height in pixels, around masks where there are no boxes; (D, 4)."""
        if self.detections.boxes is not None:
            return self.detections.boxes
        return np.asarray(mask_api.toBbox(self.detections.segmentations)).reshape(-1, 4)

    @cached_property
    def num_objects(self) -> np.ndarray:
        """Objects of each category in each range; int64, (K, A)."""
        category, num_categories = self.ground_truth.category, len(self.ground_truth.category_ids)
        counts = [np.bincount(category[x], minlength=num_categories) for x in self.object_in_range]
        return np.stack(counts, axis=1)

    def average_precision(
        self, size: int = 0, iou: float | None = None, category: int | None = None
    ) -> float:
        """AP at 100 detections; nan where there is no object.

        Args:
            size (int): Position in ``ranges``.
            iou (float, optional): One of the thresholds 0.5, 0.55, ... 0.95. Default: mean of all.
            category (int, optional): Position of a category. Defaults to the mean over those with
                objects.
        """
        thresholds = slice(None) if iou is None else np.isclose(IOU_THRESHOLDS, iou)
        categories = slice(None) if category is None else category
        return _mean(self.precision[thresholds][:, :, categories, size, -1])

    def average_recall(self, size: int = 0, max_detections: int = 100) -> float:
        """AR at 1, 10 or 100 detections, as :meth:`average_precision`."""
        return _mean(self.recall[:, :, size, MAX_DETECTIONS.index(max_detections)])


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else float('nan')


def evaluate(
    ground_truth: GroundTruth,
    detections: Detections,
    ranges: Sequence[SizeRange],
    iou_type: str = 'bbox',
) -> SizeEvaluation:
    """Judge detections in COCO's own size ranges and in the given ones.

    Raises:
        UserError: If boxes or masks that ``iou_type`` needs are not there, or a mask is none.
    """
    for records in (ground_truth, detections):
        check_iou_type(records, iou_type)
    images = [dict(id=i) for i in range(len(ground_truth.image_ids))]
    if iou_type == 'segm':
        for records in (ground_truth, detections):
            check_masks(records, ground_truth)
        for numbered, image in zip(images, ground_truth.images, strict=True):
            numbered.update(height=image['height'], width=image['width'])
        areas = np.asarray(mask_api.area(detections.segmentations), np.float64)
    else:
        areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    judged = Judged(ground_truth, detections, iou_type, (*COCO_RANGES, *ranges), areas)
    categories = range(len(ground_truth.category_ids))
    blocks = [_judge(judged, images, categories[i : i + BLOCK]) for i in categories[::BLOCK]]
    precision, recall, ious = zip(*blocks, strict=True)
    return SizeEvaluation(
        **vars(judged),
        precision=np.concatenate(precision, axis=2),
        recall=np.concatenate(recall, axis=1),
        ious={pair: values for block in ious for pair, values in block.items()},
    )


def _judge(
    judged: Judged, images: list[dict], categories: range
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Precision, recall and IoU of some categories, as in :class:`SizeEvaluation`.

    The engine runs for ranges in pixels and again for relative ones: it compares areas with
    ranges, hence relative ranges need records whose areas are relative too. IoU does not depend on
    them, and is taken over from the first run.
    """
    results, ious = [], None
    for relative in (False, True):
        ranges = [x.closed for x in judged.ranges if x.relative == relative]
        if not ranges:
            continue
        engine = Engine(
            objects=_annotations(judged, judged.ground_truth, relative, categories),
            detections=_annotations(judged, judged.detections, relative, categories),
            images=images,
            categories=categories,
            iou_type=judged.iou_type,
            ranges=ranges,
            ious=ious,
        )
        engine.evaluate()
        ious = engine.ious
        results.append(engine.eval)
    precision = np.concatenate([x['precision'] for x in results], axis=3)
    recall = np.concatenate([x['recall'] for x in results], axis=2)
    return precision, recall, {pair: values for pair, values in ious.items() if len(values)}


def _annotations(
    judged: Judged, records: GroundTruth | Detections, relative: bool, categories: range
) -> list[dict]:
    """Objects or detections of some categories as COCO's evaluation takes them."""
    is_chosen = (records.category >= categories.start) & (records.category < categories.stop)
    chosen = np.flatnonzero(is_chosen)
    columns = dict(
        id=(chosen + 1).tolist(),
        area=judged.sizes(records, relative)[chosen].tolist(),
        image_id=records.image[chosen].tolist(),
        category_id=records.category[chosen].tolist(),
    )
    if isinstance(records, GroundTruth):
        columns['iscrowd'] = records.crowd[chosen].astype(int).tolist()
    else:
        columns['score'] = records.scores[chosen].tolist()
    if judged.iou_type == 'segm':
        columns['segmentation'] = [records.segmentations[i] for i in chosen]
    else:
        columns['bbox'] = records.boxes[chosen].tolist()
    return [dict(zip(columns, x, strict=True)) for x in zip(*columns.values(), strict=True)]
