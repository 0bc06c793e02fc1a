"""COCO's evaluation over any size ranges, by faster-coco-eval.

Letters: I images, K categories, A size ranges, T IoU thresholds, G objects, D detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as mask_api

from ..sizes import COCO_RANGES, SizeRange
from .coco_files import Detections, GroundTruth, check_iou_type, check_masks

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)
# Categories at a time: the engine keeps a record of each image, category and range, found or not.
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
        super().__init__(*both, iou_type, print_function=_say_nothing)
        self.params.maxDets = list(MAX_DETECTIONS)
        self.params.areaRng = [list(x) for x in ranges]
        self.params.areaRngLbl = [str(i) for i in range(len(ranges))]
        self._known_ious = ious

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        if self._known_ious is None:
            return super().computeIoU(imgId, catId)
        return self._known_ious[imgId, catId]


def _say_nothing(*args) -> None:
    """The library reports its progress to this."""


@dataclass
class SizeEvaluation:
    """Detections judged by COCO's rules, in COCO's own size ranges and in further ones.

    Attributes:
        iou_type (str): 'bbox' or 'segm'.
        ranges (tuple[SizeRange]): A ranges; the first four are COCO's.
        precision (np.ndarray): (T, 101, K, A, 3), -1 where there is no object; the last axis is
            the largest number of detections per image and category: 1, 10, 100.
        recall (np.ndarray): (T, K, A, 3), likewise.
        detection_areas (np.ndarray): (D, ); of masks for 'segm', else of boxes; in pixels.
        ious (dict): (image, category) -> array (detections, objects), detections by falling score
            and at most 100 of them.
    """

    ground_truth: GroundTruth
    detections: Detections
    iou_type: str
    ranges: tuple[SizeRange, ...]
    precision: np.ndarray
    recall: np.ndarray
    detection_areas: np.ndarray
    ious: dict

    @cached_property
    def object_in_range(self) -> np.ndarray:
        """Which objects each range counts; crowd regions in none. bool, (A, G)."""
        return self._in_range(1) & ~self.ground_truth.crowd

    @cached_property
    def detection_in_range(self) -> np.ndarray:
        """Which detections count as false in each range where they match nothing; (A, D)."""
        return self._in_range(0)

    def _in_range(self, side: int) -> np.ndarray:
        return np.stack([x.holds(self.sizes(x.relative)[side]) for x in self.ranges])

    def sizes(self, relative: bool) -> tuple[np.ndarray, np.ndarray]:
        """Areas of detections (D, ) and objects (G, ), in pixels or as fractions of the image."""
        return _sizes(self.ground_truth, self.detections, self.detection_areas, relative)

    @cached_property
    def detection_boxes(self) -> np.ndarray:
        """x, y, width, height in pixels, around masks where there are no boxes; (D, 4)."""
        if self.detections.boxes is not None:
            return self.detections.boxes
        return np.asarray(mask_api.toBbox(self.detections.segmentations)).reshape(-1, 4)

    @cached_property
    def num_objects(self) -> np.ndarray:
        """Objects of each category in each range; int64, (K, A)."""
        num_categories = len(self.ground_truth.category_ids)
        counts = [
            np.bincount(self.ground_truth.category[held], minlength=num_categories)
            for held in self.object_in_range
        ]
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
        return _mean(self.precision[_thresholds(iou), :, _only(category), size, -1])

    def average_recall(
        self, size: int = 0, max_detections: int = 100, category: int | None = None
    ) -> float:
        """AR at 1, 10 or 100 detections, as :meth:`average_precision`."""
        at = MAX_DETECTIONS.index(max_detections)
        return _mean(self.recall[:, _only(category), size, at])


def _thresholds(iou: float | None) -> slice | np.ndarray:
    return slice(None) if iou is None else np.isclose(IOU_THRESHOLDS, iou).nonzero()[0]


def _only(category: int | None) -> slice:
    return slice(None) if category is None else slice(category, category + 1)


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
    for side in (ground_truth, detections):
        check_iou_type(side, iou_type)
    has_masks = iou_type == 'segm'
    if has_masks:
        for side in (ground_truth, detections):
            check_masks(side, ground_truth)
        areas = np.asarray(mask_api.area(detections.segmentations), np.float64)
    else:
        areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    ranges = (*COCO_RANGES, *ranges)
    images = [dict(id=i) for i in range(len(ground_truth.image_ids))]
    if has_masks:
        for own, image in zip(images, ground_truth.images, strict=True):
            own.update(height=image['height'], width=image['width'])

    engine = partial(_run, ground_truth, detections, areas, images, iou_type, ranges)
    starts = range(0, len(ground_truth.category_ids), BLOCK)
    blocks = [
        engine(start, min(start + BLOCK, len(ground_truth.category_ids))) for start in starts
    ]
    return SizeEvaluation(
        ground_truth=ground_truth,
        detections=detections,
        iou_type=iou_type,
        ranges=ranges,
        precision=np.concatenate([precision for precision, _, _ in blocks], axis=2),
        recall=np.concatenate([recall for _, recall, _ in blocks], axis=1),
        detection_areas=areas,
        ious={pair: values for _, _, ious in blocks for pair, values in ious.items()},
    )


def _run(
    ground_truth: GroundTruth,
    detections: Detections,
    areas: np.ndarray,
    images: list[dict],
    iou_type: str,
    ranges: Sequence[SizeRange],
    start: int,
    stop: int,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Precision, recall and IoU of the categories from ``start`` to below ``stop``."""
    rows = [
        np.flatnonzero((side.category >= start) & (side.category < stop))
        for side in (detections, ground_truth)
    ]
    parts, ious = [], None
    for relative in (False, True):
        chosen = [x for x in ranges if x.relative == relative]
        if not chosen:
            continue
        sizes = _sizes(ground_truth, detections, areas, relative)
        found, objects = (
            _records(side, size, iou_type == 'segm', own)
            for side, size, own in zip((detections, ground_truth), sizes, rows, strict=True)
        )
        bounds = [x.closed for x in chosen]
        engine = Engine(objects, found, images, range(start, stop), iou_type, bounds, ious)
        engine.evaluate()
        ious = engine.ious
        parts.append(engine.eval)
    # In the order of ``ranges``, in which relative ones come last.
    precision = np.concatenate([x['precision'] for x in parts], axis=3)
    recall = np.concatenate([x['recall'] for x in parts], axis=2)
    return precision, recall, {pair: values for pair, values in ious.items() if len(values)}


def _sizes(
    ground_truth: GroundTruth, detections: Detections, areas: np.ndarray, relative: bool
) -> tuple[np.ndarray, np.ndarray]:
    if not relative:
        return areas, ground_truth.areas
    of_image = ground_truth.image_areas
    return areas / of_image[detections.image], ground_truth.areas / of_image[ground_truth.image]


def _records(
    side: GroundTruth | Detections, sizes: np.ndarray, has_masks: bool, rows: np.ndarray
) -> list[dict]:
    """Some annotations as COCO's evaluation takes them, with ``sizes`` as areas."""
    columns = dict(
        id=(rows + 1).tolist(),
        image_id=side.image[rows].tolist(),
        category_id=side.category[rows].tolist(),
        area=sizes[rows].tolist(),
    )
    if isinstance(side, GroundTruth):
        columns['iscrowd'] = side.crowd[rows].astype(int).tolist()
    else:
        columns['score'] = side.scores[rows].tolist()
    if has_masks:
        columns['segmentation'] = [side.segmentations[i] for i in rows]
    else:
        columns['bbox'] = side.boxes[rows].tolist()
    names = list(columns)
    return [dict(zip(names, x, strict=True)) for x in zip(*columns.values(), strict=True)]
