"""What each type of error costs, in each size range: the error types of TIDE.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. At an
IoU threshold of 0.5, each false detection has one type, by the first of these that holds:

- localisation: IoU of 0.1 to 0.5 with an object of its class;
- classification: IoU of at least 0.5 with an object of another class;
- duplicate: IoU of at least 0.5 with an object of its class that another detection matches;
- background: IoU of at most 0.1 with every object;
- both: none of these (0.1 to 0.5 with an object of another class).

A missed object is one that nothing matches, and to which no localisation or classification error
belongs. The cost of a type is the AP50 gained by mending all its errors and no others: the best
detection of an unmatched object becomes a true positive of its class, all other false ones of the
type go, missed objects are no longer asked for.

In a size range, a type costs what mending it gains in that range's AP50. What is an error is
decided once, over all sizes. Detections on crowd regions are no errors.

Letters: N ranked detections, G objects, K categories, A size ranges.
"""

from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as mask_api

from .bootstrap import interpolated_ap
from .coco_eval import SizeEvaluation
from .coco_files import Detections, GroundTruth
from .matches import Matches, matched_objects

FALSE_TYPES = ('classification', 'localisation', 'both', 'duplicate', 'background')
TYPES = (*FALSE_TYPES, 'missed')
# All false detections gone; all objects that nothing matches no longer asked for.
SUMMARIES = ('false positives', 'false negatives')
POSITIVE, BACKGROUND = 0.5, 0.1


@dataclass
class ErrorAnalysis:
    """Errors, and what they cost.

    Attributes:
        ap50 (np.ndarray): Of each range, nan where it has no object; (A, ).
        cost (dict[str, np.ndarray]): AP50 that mending a type, or all false positives or
            negatives, gains in each range; (A, ).
        counts (dict[str, np.ndarray]): How many errors of each type each range has; int64, (A, ).
        kind (np.ndarray): Position in ``FALSE_TYPES`` of each ranked detection, else -1; (N, ).
        missed (np.ndarray): bool, (G, ).
    """

    ap50: np.ndarray
    cost: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    kind: np.ndarray
    missed: np.ndarray


def analyse_errors(evaluation: SizeEvaluation, matches: Matches) -> ErrorAnalysis:
    """Find the errors of each type and what they cost.

    Args:
        evaluation (SizeEvaluation): What :func:`evaluate` returned; its first range is COCO's all.
        matches (Matches): What :func:`match` returned; its first threshold is 0.5.
    """
    ground_truth, detections = evaluation.ground_truth, evaluation.detections
    ranked = matches.ranked
    matched = matched_objects(matches, 0)
    is_found = np.zeros(len(ground_truth.areas), bool)
    is_found[matched[matched >= 0]] = True
    kind, target = _classify(evaluation, ranked, matched < 0, is_found)
    is_winner = _winners(kind, target, detections.scores[ranked], is_found)
    is_missed = ~is_found & ~ground_truth.crowd
    is_missed[target[is_winner]] = False

    category, scores = detections.category[ranked], detections.scores[ranked]
    ap50, counts = [], {name: [] for name in TYPES}
    cost = {name: [] for name in (*TYPES, *SUMMARIES)}
    for a, is_counted in enumerate(evaluation.object_in_range):
        matched = matched_objects(matches, a)
        is_true = (matched >= 0) & is_counted[matched]
        is_false = (matched < 0) & evaluation.detection_in_range[a, ranked]
        num_objects = evaluation.num_objects[:, a]
        base = _mean_ap50(category, scores, is_true, is_false, num_objects, num_objects)
        ap50.append(base)

        for position, name in enumerate(FALSE_TYPES):
            is_of_type = kind == position
            is_mended = is_of_type & is_winner & is_counted[target]
            fixed_category = np.where(is_mended, ground_truth.category[target], category)
            fixed = fixed_category, scores, is_true | is_mended, is_false & ~is_of_type
            cost[name].append(_mean_ap50(*fixed, num_objects, num_objects) - base)
            counts[name].append(int((is_false & is_of_type).sum()))
        missed_objects = ground_truth.category[is_missed & is_counted]
        num_missed = np.bincount(missed_objects, minlength=len(num_objects))
        num_found = np.bincount(category[is_true], minlength=len(num_objects))
        counts['missed'].append(int(num_missed.sum()))
        for name, false, asked_for in (
            ('missed', is_false, num_objects - num_missed),
            ('false positives', np.zeros_like(is_false), num_objects),
            ('false negatives', is_false, num_found),
        ):
            new = _mean_ap50(category, scores, is_true, false, asked_for, num_objects)
            cost[name].append(new - base)
    return ErrorAnalysis(
        ap50=np.array(ap50),
        cost={name: np.array(x) for name, x in cost.items()},
        counts={name: np.array(x) for name, x in counts.items()},
        kind=kind,
        missed=is_missed,
    )


def _classify(
    evaluation: SizeEvaluation, ranked: np.ndarray, is_false: np.ndarray, is_found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Type of each ranked detection, -1 for none; and the object it is about, 0 where none."""
    ground_truth, detections = evaluation.ground_truth, evaluation.detections
    kind = np.full(len(ranked), -1, np.int8)
    target = np.zeros(len(ranked), np.int64)
    kind[is_false] = FALSE_TYPES.index('background')
    objects_of = _by_image(ground_truth.image, ~ground_truth.crowd)
    false_of = _by_image(detections.image[ranked], is_false)
    detected, annotated = (_shapes(evaluation, x) for x in (detections, ground_truth))
    for image in false_of.keys() & objects_of.keys():
        false, objects = false_of[image], objects_of[image]
        compared = detected[ranked[false]], annotated[objects]
        if evaluation.iou_type == 'segm':
            compared = [masks.tolist() for masks in compared]
        ious = np.asarray(mask_api.iou(*compared, [0] * len(objects)))
        same = detections.category[ranked[false], None] == ground_truth.category[objects]
        own, other = ious * same, ious * ~same
        best, best_other = own.max(axis=1), other.max(axis=1)
        at, at_other = objects[own.argmax(axis=1)], objects[other.argmax(axis=1)]
        conditions = {
            'localisation': (best >= BACKGROUND) & (best <= POSITIVE),
            'classification': best_other >= POSITIVE,
            'duplicate': (own * is_found[objects]).max(axis=1) >= POSITIVE,
            'background': ious.max(axis=1) <= BACKGROUND,
        }
        codes = [FALSE_TYPES.index(name) for name in conditions]
        both = FALSE_TYPES.index('both')
        kind[false] = np.select(list(conditions.values()), codes, default=both)
        is_class = kind[false] == FALSE_TYPES.index('classification')
        target[false] = np.where(is_class, at_other, at)
    return kind, target


def _winners(
    kind: np.ndarray, target: np.ndarray, scores: np.ndarray, is_found: np.ndarray
) -> np.ndarray:
    """Which localisation and classification errors would match an object if mended; (N, ).

    The best scored of those that are about an object which nothing matches.
    """
    codes = [FALSE_TYPES.index(name) for name in ('classification', 'localisation')]
    chosen = np.flatnonzero(np.isin(kind, codes))
    chosen = chosen[~is_found[target[chosen]]]
    chosen = chosen[np.argsort(-scores[chosen], kind='stable')]
    _, first = np.unique(target[chosen], return_index=True)
    is_winner = np.zeros(len(kind), bool)
    is_winner[chosen[first]] = True
    return is_winner


def _by_image(image: np.ndarray, is_chosen: np.ndarray) -> dict[int, np.ndarray]:
    """image -> positions of the chosen records."""
    chosen = np.flatnonzero(is_chosen)
    chosen = chosen[np.argsort(image[chosen], kind='stable')]
    keys, starts = np.unique(image[chosen], return_index=True)
    return dict(zip(keys.tolist(), np.split(chosen, starts)[1:], strict=True))


def _shapes(evaluation: SizeEvaluation, records: GroundTruth | Detections) -> np.ndarray:
    """What IoU is taken of: boxes, or masks as run-length encodings, dicts; of each record."""
    if evaluation.iou_type == 'bbox':
        return records.boxes
    sizes = [(x['width'], x['height']) for x in evaluation.ground_truth.images]
    pairs = zip(records.segmentations, records.image.tolist(), strict=True)
    return np.array([mask_api.segmToRle(x, *sizes[i]) for x, i in pairs], object)


def _mean_ap50(
    category: np.ndarray,
    scores: np.ndarray,
    is_true: np.ndarray,
    is_false: np.ndarray,
    asked_for: np.ndarray,
    num_objects: np.ndarray,
) -> float:
    """Mean over the categories with objects; 0 for one that is no longer asked for."""
    counted = np.flatnonzero(is_true | is_false)
    counted = counted[np.lexsort((-scores[counted], category[counted]))]
    edges = np.searchsorted(category[counted], np.arange(len(num_objects) + 1))
    values = []
    for k in np.flatnonzero(num_objects):
        is_hit = is_true[counted[edges[k] : edges[k + 1]]]
        hits, false = is_hit.cumsum()[is_hit, None], (~is_hit).cumsum()[is_hit, None]
        ap = interpolated_ap(hits, false, asked_for[k : k + 1])[0]
        values.append(ap if asked_for[k] else 0.0)
    return float(np.mean(values)) if values else float('nan')
