"""The images on which a detector errs most, in each size range.

Counted at IoU 0.5, among the detections that score at least as high as the threshold at which F1
over all sizes and categories is best: below it, false detections are many and concern nobody.
"""

import numpy as np

from .coco_eval import SizeEvaluation
from .matches import Matches, matched_objects
from .tide import FALSE_TYPES, ErrorAnalysis


def best_threshold(evaluation: SizeEvaluation, matches: Matches) -> tuple[float, float]:
    """The score at which F1 over all sizes and categories is best, and that F1; else 0 and 0."""
    if not len(matches.ranked):
        return 0.0, 0.0
    matched = matched_objects(matches, 0)
    counts = evaluation.object_in_range[0]
    is_true = (matched >= 0) & counts[matched]
    is_false = matched < 0
    scores = evaluation.detections.scores[matches.ranked]
    order = np.argsort(-scores, kind='stable')
    true, false = is_true[order].cumsum(), is_false[order].cumsum()
    f1 = 2 * true / np.maximum(true + false + counts.sum(), 1)
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
) -> list[list[dict]]:
    """The images with the most missed objects and false detections of each range.

    Args:
        evaluation (SizeEvaluation): What :func:`evaluate` returned.
        matches (Matches): What :func:`match` returned; its first threshold is 0.5.
        errors (ErrorAnalysis): What :func:`analyse_errors` returned.
        threshold (float): Least score of the detections that count.
        num_images (int): At most how many images for each range.

    Returns:
        list[list[dict]]: For each range, images with errors, worst first: image (position), missed
        and false (numbers in the range), objects and detections (see :func:`_boxes`).
    """
    ground_truth, detections = evaluation.ground_truth, evaluation.detections
    ranked = matches.ranked
    is_shown = detections.scores[ranked] >= threshold
    length = len(ground_truth.image_ids)
    found = []
    for a, counts in enumerate(evaluation.object_in_range):
        matched = matched_objects(matches, a)
        is_found = np.zeros(len(counts), bool)
        is_found[matched[(matched >= 0) & is_shown]] = True
        missed = counts & ~is_found
        false = is_shown & (matched < 0) & evaluation.detection_in_range[a, ranked]
        missed_in = np.bincount(ground_truth.image[missed], minlength=length)
        false_in = np.bincount(detections.image[ranked[false]], minlength=length)
        worst = np.argsort(-(missed_in + false_in), kind='stable')[:num_images]
        found.append(
            [
                dict(
                    image=int(i),
                    missed=int(missed_in[i]),
                    false=int(false_in[i]),
                    **_boxes(evaluation, ranked, errors, int(i), counts, is_found, false),
                )
                for i in worst
                if missed_in[i] + false_in[i]
            ]
        )
    return found


def _boxes(
    evaluation: SizeEvaluation,
    ranked: np.ndarray,
    errors: ErrorAnalysis,
    image: int,
    counts: np.ndarray,
    is_found: np.ndarray,
    false: np.ndarray,
) -> dict[str, list[dict]]:
    """What to draw on an image.

    Returns:
        dict: objects: box, category, found, of those that the range counts; detections: box,
        category, score, type of error (None where it is one in this range alone), of false ones.
    """
    ground_truth, detections = evaluation.ground_truth, evaluation.detections
    names = ground_truth.category_names
    objects = [
        dict(
            box=ground_truth.boxes[i].tolist(),
            category=names[ground_truth.category[i]],
            found=bool(is_found[i]),
        )
        for i in np.flatnonzero(counts & (ground_truth.image == image))
    ]
    rows = np.flatnonzero(false & (detections.image[ranked] == image))
    drawn = [
        dict(
            box=evaluation.detection_boxes[ranked[row]].tolist(),
            category=names[detections.category[ranked[row]]],
            score=float(detections.scores[ranked[row]]),
            type=FALSE_TYPES[errors.kind[row]] if errors.kind[row] >= 0 else None,
        )
        for row in rows
    ]
    return dict(objects=objects, detections=drawn)
