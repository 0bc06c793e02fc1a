"""The images on which a detector errs most, in each size range.

Counted at IoU 0.5, among the detections that score at least as high as the threshold at which F1
over all sizes and categories is best: below it, false detections are many and concern nobody.
"""

import numpy as np

from ..report_data import ShownDetection, ShownObject, WorstImage
from .coco_eval import SizeEvaluation
from .matches import Matches, matched_objects
from .tide import FALSE_TYPES, ErrorAnalysis


def best_threshold(evaluation: SizeEvaluation, matches: Matches) -> tuple[float, float]:
    """The score at which F1 over all sizes and categories is best, and that F1; else 0 and 0."""
    if not len(matches.ranked):
        return 0.0, 0.0
    matched = matched_objects(matches, 0)
    is_counted = evaluation.object_in_range[0]
    is_true = (matched >= 0) & is_counted[matched]
    is_false = matched < 0
    scores = evaluation.detections.scores[matches.ranked]
    order = np.argsort(-scores, kind='stable')
    true, false = is_true[order].cumsum(), is_false[order].cumsum()
    f1 = 2 * true / np.maximum(true + false + is_counted.sum(), 1)
    # Equal scores are above a threshold together.
    is_last = np.diff(scores[order], append=-np.inf) != 0
    best = int(np.where(is_last, f1, -1).argmax())
    return float(scores[order][best]), float(f1[best])


def worst_images(
    evaluation: SizeEvaluation,
    matches: Matches,
    errors: ErrorAnalysis,
    threshold: float,
    num_images: int = 3,
) -> list[list[WorstImage]]:
    """The images with the most missed objects and false detections of each range.

    Args:
        evaluation (SizeEvaluation): What :func:`evaluate` returned.
        matches (Matches): What :func:`match` returned; its first threshold is 0.5.
        errors (ErrorAnalysis): What :func:`analyse_errors` returned.
        threshold (float): Least score of the detections that count.
        num_images (int): At most how many images for each range.

    Returns:
        list[list[WorstImage]]: For each range, images with errors, worst first.
    """
    ground_truth, detections = evaluation.ground_truth, evaluation.detections
    names, ranked = ground_truth.category_names, matches.ranked
    is_shown = detections.scores[ranked] >= threshold
    length = len(ground_truth.image_ids)
    facts = ('id', 'file_name', 'height', 'width')  # that the annotations may have
    worst = []
    for a, is_counted in enumerate(evaluation.object_in_range):
        matched = matched_objects(matches, a)
        is_found = np.zeros(len(is_counted), bool)
        is_found[matched[(matched >= 0) & is_shown]] = True
        is_false = is_shown & (matched < 0) & evaluation.detection_in_range[a, ranked]
        num_missed = np.bincount(ground_truth.image[is_counted & ~is_found], minlength=length)
        num_false = np.bincount(detections.image[ranked[is_false]], minlength=length)
        num_errors = num_missed + num_false
        images = []
        for image in np.argsort(-num_errors, kind='stable')[:num_images].tolist():
            if not num_errors[image]:
                break
            objects = [
                ShownObject(
                    box=ground_truth.boxes[i].tolist(),
                    category=names[ground_truth.category[i]],
                    found=bool(is_found[i]),
                )
                for i in np.flatnonzero(is_counted & (ground_truth.image == image))
            ]
            is_here = is_false & (detections.image[ranked] == image)
            false_detections = [
                ShownDetection(
                    box=evaluation.detection_boxes[i].tolist(),
                    category=names[detections.category[i]],
                    score=float(detections.scores[i]),
                    type=FALSE_TYPES[kind] if kind >= 0 else None,
                )
                for i, kind in zip(ranked[is_here], errors.kind[is_here], strict=True)
            ]
            missed, false = int(num_missed[image]), int(num_false[image])
            known = {key: ground_truth.images[image].get(key) for key in facts}
            images.append(WorstImage(missed, false, objects, false_detections, **known))
        worst.append(images)
    return worst
