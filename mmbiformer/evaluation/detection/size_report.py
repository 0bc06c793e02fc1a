"""Everything that is known of detectors on one ground truth, by object size.

:func:`size_report` puts it together; what is written or drawn of it is made from this alone.
"""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from .. import report_data
from ..resampling import Bootstrap, intervals, mean_of_known, weigh_images
from ..sizes import SizeRange
from .bootstrap import KINDS, weighted_ap
from .coco_eval import IOU_THRESHOLDS, SizeEvaluation, evaluate
from .coco_files import Detections, GroundTruth
from .coco_summary import coco_summary, detection_notices, range_notices
from .matches import match
from .tide import SUMMARIES, TYPES, ErrorAnalysis, analyse_errors
from .worst_images import best_threshold, worst_images


def size_report(
    ground_truth: GroundTruth,
    models: dict[str, Detections],
    ranges: Sequence[SizeRange],
    iou_type: str = 'bbox',
    bootstrap: Bootstrap | None = None,
    progress: bool = False,
) -> report_data.DetectionReport:
    """Judge one or several detectors by object size; further ones are compared with the first.

    Arguments are those of :func:`mmbiformer.evaluation.judge_files.judge_files`, with what its
    files contain. Of fewer than 5 images with objects there are no intervals, as their resamples
    differ too little.
    """
    weights = weigh_images(len(ground_truth.image_ids), bootstrap) if bootstrap else None
    detectors, resampled = [], []
    for name, detections in models.items():
        if progress:
            tqdm.write(f'evaluating {name}: {len(detections.scores):,} detections')
        evaluation = evaluate(ground_truth, detections, ranges, iou_type)
        detector, ap = _judge(name, evaluation, weights, progress)
        detectors.append(detector)
        resampled.append(ap)
    first, differences = detectors[0], []
    for other, ap in zip(detectors[1:], resampled[1:], strict=True):
        bounds = None
        if bootstrap:
            num_images, _ = _num_images(evaluation)
            ends = intervals(ap - resampled[0], num_images, is_difference=True)
            bounds = dict(zip(KINDS, ends, strict=True))
        rows = report_data.subtract(first, other, KINDS, bounds)
        differences.append(report_data.Difference(other.name, first.name, rows))
    return report_data.DetectionReport(
        ranges=list(evaluation.ranges),
        bootstrap=bootstrap,
        models=detectors,
        differences=differences,
        iou_type=iou_type,
        ground_truth=report_data.GroundTruthFacts(
            path=ground_truth.path,
            num_images=len(ground_truth.image_ids),
            num_objects=int((~ground_truth.crowd).sum()),
            categories=ground_truth.category_names,
            notices=[*ground_truth.notices, *range_notices(evaluation)],
        ),
    )


def _judge(
    name: str, evaluation: SizeEvaluation, weights: np.ndarray | None, progress: bool
) -> tuple[report_data.Detector, np.ndarray | None]:
    """A detector; and where there are weights its AP under them, (3, A, 1 + W)."""
    # Without resamples only the errors need matches, and those at 0.5.
    thresholds = (0.5,) if weights is None else tuple(IOU_THRESHOLDS)
    matches = match(evaluation, thresholds, progress)
    errors = analyse_errors(evaluation, matches)
    threshold, f1 = best_threshold(evaluation, matches)
    num_categories, num_ranges = evaluation.num_objects.shape
    resampled = bounds = category_bounds = None
    if weights is not None:
        by_category = weighted_ap(evaluation, matches, weights, progress)
        resampled = mean_of_known(by_category, axis=2)
        in_range, in_category = _num_images(evaluation)
        bounds = dict(zip(KINDS, intervals(resampled, in_range), strict=True))
        category_bounds = intervals(by_category[0], in_category)
    detector = report_data.Detector(
        name=name,
        path=evaluation.detections.path,
        notices=detection_notices(evaluation),
        overall={key: report_data.Score.of(x) for key, x in coco_summary(evaluation).items()},
        counts=dict(num_detections=len(evaluation.detections.scores)),
        sizes=[_row(evaluation, errors, a, bounds) for a in range(num_ranges)],
        classes=[_category(evaluation, k, category_bounds) for k in range(num_categories)],
        best_threshold=threshold,
        best_f1=f1,
        worst_images=worst_images(evaluation, matches, errors, threshold),
    )
    return detector, resampled


def _row(
    evaluation: SizeEvaluation, errors: ErrorAnalysis, a: int, bounds: dict | None
) -> report_data.DetectorRow:
    """One range; ``bounds`` map ``KINDS`` to low and high of each range, (A, 2)."""
    ap = evaluation.average_precision
    values = dict(zip(KINDS, (ap(a), ap(a, 0.5), ap(a, 0.75)), strict=True))
    scores = {
        kind: report_data.Score.of(x, bounds and bounds[kind][a]) for kind, x in values.items()
    }
    counts = {kind: int(x[a]) for kind, x in errors.counts.items()}
    return report_data.DetectorRow(
        size=evaluation.ranges[a],
        scores=dict(scores, AR=report_data.Score.of(evaluation.average_recall(a))),
        counts=dict(num_objects=int(evaluation.num_objects[:, a].sum())),
        errors={
            kind: report_data.ErrorCost(report_data.known(errors.cost[kind][a]), counts.get(kind))
            for kind in (*TYPES, *SUMMARIES)
        },
    )


def _category(
    evaluation: SizeEvaluation, k: int, bounds: np.ndarray | None
) -> report_data.ClassRows:
    """One category; ``bounds`` are low and high of AP, (A, K, 2)."""
    sizes = []
    for a, size in enumerate(evaluation.ranges):
        ends = None if bounds is None else bounds[a, k]
        ap = report_data.Score.of(evaluation.average_precision(a, category=k), ends)
        num_objects = int(evaluation.num_objects[k, a])
        sizes.append(report_data.SizeRow(size, dict(AP=ap), dict(num_objects=num_objects)))
    return report_data.ClassRows(evaluation.ground_truth.category_names[k], sizes)


def _num_images(evaluation: SizeEvaluation) -> tuple[np.ndarray, np.ndarray]:
    """How many images have objects in each range, (A, ), and of each category, (A, K)."""
    ground_truth = evaluation.ground_truth
    of_category = np.zeros((len(evaluation.ranges), len(ground_truth.category_ids)), np.int64)
    of_range = np.zeros(len(evaluation.ranges), np.int64)
    for a, is_held in enumerate(evaluation.object_in_range):
        pairs = np.stack([ground_truth.category[is_held], ground_truth.image[is_held]])
        of_range[a] = len(np.unique(pairs[1]))
        categories = np.unique(pairs, axis=1)[0]
        of_category[a] = np.bincount(categories, minlength=of_category.shape[1])
    return of_range, of_category
