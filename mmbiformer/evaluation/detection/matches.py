"""Which detection matches which object, at every IoU threshold and in every size range.

faster-coco-eval matches, and tells pairs only without their threshold and range. Hence it is asked
for one threshold at a time, on the pairs of an image and a category where anything can match.

Letters: T IoU thresholds, A size ranges, G objects, D detections, M candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..sizes import SizeRange
from .coco_eval import IOU_THRESHOLDS, MAX_DETECTIONS, Engine, SizeEvaluation
from .coco_files import Detections, GroundTruth


@dataclass
class Matches:
    """Outcome of the matching, and the order in which detections enter a precision-recall curve.

    Attributes:
        ranked (np.ndarray): The detections that count, at most 100 per image and category; by
            category, falling score, and position. int64, (N, ).
        candidates (np.ndarray): Positions in ``ranked``, ascending, of those that match anything
            anywhere; int64, (M, ).
        matched (np.ndarray): Object that each candidate matches, -1 for none; int32, (T, A, M).
    """

    ranked: np.ndarray
    candidates: np.ndarray
    matched: np.ndarray


def matched_objects(matches: Matches, size: int) -> np.ndarray:
    """Object that each ranked detection matches at the first threshold, or -1; int64, (N, ).

    ``size`` is the position of a size range.
    """
    matched = np.full(len(matches.ranked), -1, np.int64)
    matched[matches.candidates] = matches.matched[0, size]
    return matched


@dataclass
class _Group:
    """An image and a category: m detections that can match, best first, n objects, IoU (m, n)."""

    detections: np.ndarray
    objects: np.ndarray
    ious: np.ndarray


class _Matcher(Engine):
    """Keeps the outcome of the matching apart from its accumulation."""

    def pairs(self, threshold: float) -> list[np.ndarray]:
        """For each range, matched (detection, object) ids, int64, (n, 2)."""
        # One opaque record per category, range and image, in this order.
        self.separate_eval = True
        self.params.iouThrs = np.array([threshold])
        self.evaluate()
        records, ranges = self._evalImgs_cpp, self.params.areaRng
        num_images = len(self.params.imgIds)
        pairs = []
        for position, bounds in enumerate(ranges):
            start = position * num_images
            self._evalImgs_cpp = records[start : start + num_images]
            self._paramsEval.areaRng = [bounds]
            self.accumulate()
            keys = [key.split('_') for key in self.eval['matched']]
            pairs.append(np.array(keys, np.int64).reshape(-1, 2))
        return pairs


def match(
    evaluation: SizeEvaluation,
    thresholds: Sequence[float] = tuple(IOU_THRESHOLDS),
    progress: bool = False,
) -> Matches:
    """Match detections to objects as COCO's evaluation does.

    Args:
        evaluation (SizeEvaluation): What :func:`evaluate` returned.
        thresholds (Sequence[float]): T IoU thresholds.
        progress (bool): Show a bar.
    """
    detections, ranges = evaluation.detections, evaluation.ranges
    ranked_by_group = _by_image_and_category(detections)
    order = np.concatenate([np.zeros(0, np.int64), *ranked_by_group.values()])
    # By image already, and lexsort is stable: ties stay in the order of COCO's evaluation.
    ranked = order[np.lexsort((-detections.scores[order], detections.category[order]))]

    objects_by_group = _by_image_and_category(evaluation.ground_truth)
    groups = []
    for key, ious in evaluation.ious.items():
        can_match = ious.max(axis=1) >= min(thresholds)
        if can_match.any():
            own = ranked_by_group[key][can_match]
            groups.append(_Group(own, objects_by_group[key], ious[can_match]))
    matched = np.full((len(thresholds), len(ranges), len(detections.scores)), -1, np.int32)
    for relative in (False, True):
        positions = [i for i, x in enumerate(ranges) if x.relative == relative]
        if not groups or not positions:
            continue
        matcher = _matcher(evaluation, groups, [ranges[i] for i in positions], relative)
        bar = tqdm(thresholds, 'matching', unit=' thresholds', disable=not progress)
        for t, threshold in enumerate(bar):
            for i, ids in zip(positions, matcher.pairs(threshold), strict=True):
                matched[t, i, ids[:, 0] - 1] = ids[:, 1] - 1
    can_match = np.concatenate([np.zeros(0, np.int64), *(x.detections for x in groups)])
    candidates = np.flatnonzero(np.isin(ranked, can_match))
    return Matches(ranked, candidates, matched[:, :, ranked[candidates]])


def _by_image_and_category(
    records: GroundTruth | Detections,
) -> dict[tuple[int, int], np.ndarray]:
    """(image, category) -> positions, of detections those that count, by falling score."""
    keys = (records.category, records.image)
    limit = None
    if isinstance(records, Detections):
        keys, limit = (-records.scores, *keys), MAX_DETECTIONS[-1]
    order = np.lexsort(keys)
    image, category = records.image[order], records.category[order]
    is_first = (np.diff(image, prepend=-1) != 0) | (np.diff(category, prepend=-1) != 0)
    starts = np.flatnonzero(is_first)
    return {
        (int(image[start]), int(category[start])): positions[:limit]
        for start, positions in zip(starts, np.split(order, starts)[1:], strict=True)
    }


def _matcher(
    evaluation: SizeEvaluation, groups: list[_Group], ranges: Sequence[SizeRange], relative: bool
) -> _Matcher:
    """An engine to which each group is an image, with one category."""
    areas = evaluation.sizes(evaluation.detections, relative).tolist()
    object_areas = evaluation.sizes(evaluation.ground_truth, relative).tolist()
    crowd = evaluation.ground_truth.crowd.astype(int).tolist()
    objects, detections = [], []
    for image, group in enumerate(groups):
        detections += [
            # Ranks for scores: they keep the order, which is all that scores do here.
            dict(id=i + 1, image_id=image, category_id=0, bbox=(), area=areas[i], score=-rank)
            for rank, i in enumerate(group.detections.tolist())
        ]
        where = dict(image_id=image, category_id=0, bbox=())
        objects += [
            dict(where, id=i + 1, area=object_areas[i], iscrowd=crowd[i])
            for i in group.objects.tolist()
        ]
    return _Matcher(
        objects=objects,
        detections=detections,
        images=[dict(id=i) for i in range(len(groups))],
        categories=[0],
        iou_type='bbox',
        ranges=[x.closed for x in ranges],
        ious={(image, 0): group.ious for image, group in enumerate(groups)},
    )
