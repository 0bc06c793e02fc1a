"""What is said of every evaluation, in a config's metric and in a report."""

import numpy as np

from .coco_eval import MAX_DETECTIONS, SizeEvaluation


def coco_summary(evaluation: SizeEvaluation) -> dict[str, float]:
    """The twelve numbers of COCO, at its own limits of 1, 10 and 100 detections; nan for none."""
    ap, ar = evaluation.average_precision, evaluation.average_recall
    values = {'AP': ap(), 'AP50': ap(iou=0.5), 'AP75': ap(iou=0.75)}
    values.update({f'AP{x}': ap(i) for i, x in enumerate('sml', 1)})
    values.update({f'AR@{x}': ar(max_detections=x) for x in MAX_DETECTIONS})
    values.update({f'AR{x}@100': ar(i) for i, x in enumerate('sml', 1)})
    return values


def detection_notices(evaluation: SizeEvaluation) -> list[str]:
    """What of the detections does not count, and what is not there, in sentences."""
    detections, num_categories = evaluation.detections, len(evaluation.ground_truth.category_ids)
    _, counts = np.unique(
        detections.image * num_categories + detections.category, return_counts=True
    )
    limit, total = MAX_DETECTIONS[-1], len(detections.scores)
    beyond = int((counts - limit).clip(0).sum())
    notices = list(detections.notices)
    if beyond:
        notices.append(
            f'{beyond:,} of {total:,} detections are beyond the best {limit} of an image and '
            'category, and do not count'
        )
    has_objects = evaluation.num_objects[:, 0] > 0
    unseen = has_objects.sum() - has_objects[np.unique(detections.category)].sum()
    if unseen:
        notices.append(f'{unseen:,} categories with objects have no detections: their AP is 0')
    num_images = len(evaluation.ground_truth.image_ids)
    without = num_images - len(np.unique(detections.image))
    if without:
        notices.append(f'{without:,} of {num_images:,} images have no detections')
    return notices


def range_notices(evaluation: SizeEvaluation) -> list[str]:
    """Which objects the ranges leave out, in a sentence; COCO's own leave out none."""
    is_further = [not x.is_coco for x in evaluation.ranges]
    if not any(is_further):
        return []
    is_held = evaluation.object_in_range[is_further].any(axis=0) | evaluation.ground_truth.crowd
    outside = np.count_nonzero(~is_held)
    return [f'{outside:,} objects are in none of the size ranges'] if outside else []
