"""How far AP would move on other images: the bootstrap over images.

A resample draws as many images as there are, with replacement. Matching happens within an image,
so a resample is a weight per image, and AP of thousands of them is a matter of cumulative sums.

Letters: I images, K categories, A size ranges, W resamples.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from .coco_eval import SizeEvaluation
from .matches import Matches

RECALLS = np.linspace(0, 1, 101)
# AP, AP50 and AP75: which of the IoU thresholds they are the mean of.
KINDS = {'AP': slice(None), 'AP50': slice(0, 1), 'AP75': slice(5, 6)}
BLOCK = 128  # resamples at a time, so that a category's sums stay in cache


def weighted_ap(
    evaluation: SizeEvaluation, matches: Matches, weights: np.ndarray, progress: bool = False
) -> np.ndarray:
    """AP, AP50 and AP75 where each image counts as often as its weights say.

    Equals COCO's evaluation of a data set in which the images are repeated that often; equally
    scored detections of one image stay together.

    Args:
        evaluation (SizeEvaluation): What :func:`evaluate` returned.
        matches (Matches): What :func:`match` returned, at COCO's thresholds.
        weights (np.ndarray): Non-negative integers, (I, W).
        progress (bool): Show a bar.

    Returns:
        np.ndarray: (3, A, K, W), nan where a resample has no object.
    """
    num_categories = len(evaluation.ground_truth.category_ids)
    work = partial(_category_ap, evaluation, matches, weights)
    # NumPy lets go of the interpreter's lock in its long loops.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(work, _splits(evaluation, matches))
        done = tqdm(done, 'bootstrap', num_categories, unit=' categories', disable=not progress)
        return np.stack(list(done), axis=2)


def mean_ap(ap: np.ndarray) -> np.ndarray:
    """COCO's mean over the categories that have objects: (3, A, K, W) to (3, A, W)."""
    has_objects = ~np.isnan(ap)
    count = has_objects.sum(axis=2)
    total = np.where(has_objects, ap, 0).sum(axis=2)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _splits(evaluation: SizeEvaluation, matches: Matches) -> Iterator[tuple[int, slice, slice]]:
    """(category, its part of ``ranked``, its part of ``candidates``)."""
    category = evaluation.detections.category[matches.ranked]
    edges = np.arange(len(evaluation.ground_truth.category_ids) + 1)
    starts = np.searchsorted(category, edges)
    of_candidates = np.searchsorted(matches.candidates, starts)
    for k in edges[:-1]:
        yield int(k), slice(*starts[k : k + 2]), slice(*of_candidates[k : k + 2])


def _category_ap(
    evaluation: SizeEvaluation,
    matches: Matches,
    weights: np.ndarray,
    split: tuple[int, slice, slice],
) -> np.ndarray:
    """(3, A, W)."""
    category, of_ranked, of_candidates = split
    ranked = matches.ranked[of_ranked]
    image = evaluation.detections.image[ranked]
    candidates = matches.candidates[of_candidates] - of_ranked.start
    matched = matches.matched[:, :, of_candidates]
    is_object = evaluation.ground_truth.category == category
    ap = np.full((len(KINDS), len(evaluation.ranges), weights.shape[1]), np.nan)
    for a, counts in enumerate(evaluation.object_in_range):
        holders = evaluation.ground_truth.image[counts & is_object]
        if not len(holders):
            continue
        in_range = evaluation.detection_in_range[a, ranked]
        plans = [_plan(x[a], counts, candidates, in_range) for x in matched]
        for block in _blocks(weights.shape[1]):
            own = weights[:, block]
            num_objects = own[holders].sum(axis=0)
            falls = own[image[in_range]].cumsum(axis=0)
            by_threshold = np.stack([_ap(own, image, falls, num_objects, *x) for x in plans])
            for kind, chosen in enumerate(KINDS.values()):
                ap[kind, a, block] = by_threshold[chosen].mean(axis=0)
    return ap


def _blocks(length: int) -> Iterable[slice]:
    return (slice(start, start + BLOCK) for start in range(0, length, BLOCK))


def _plan(
    matched: np.ndarray, counts: np.ndarray, candidates: np.ndarray, in_range: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What of the curve does not depend on weights.

    Args:
        matched (np.ndarray): Object of each candidate, or -1.
        counts (np.ndarray): Which objects the range counts.
        candidates (np.ndarray): Their positions among the category's detections.
        in_range (np.ndarray): Which of these detections are false where they match nothing.

    Returns:
        tuple: Positions of true positives; positions of matched detections that are in range, and
        so no false positives though in range; and how many of all that are in range, and of these,
        come no later than each true positive.
    """
    is_matched = matched >= 0
    positions, objects = candidates[is_matched], matched[is_matched]
    true = positions[counts[objects]]
    no_falls = positions[in_range[positions]]
    up_to = in_range.cumsum()[true]
    return true, no_falls, up_to, np.searchsorted(no_falls, true, side='right')


def _ap(
    weights: np.ndarray,
    image: np.ndarray,
    falls: np.ndarray,
    num_objects: np.ndarray,
    true: np.ndarray,
    no_falls: np.ndarray,
    up_to: np.ndarray,
    no_falls_up_to: np.ndarray,
) -> np.ndarray:
    """AP at one threshold, (W, ): precision and recall change only where a true positive comes."""
    hits = weights[image[true]].cumsum(axis=0)
    others = _with_zero(weights[image[no_falls]].cumsum(axis=0))[no_falls_up_to]
    false = _with_zero(falls)[up_to] - others
    return interpolated_ap(hits, false, num_objects)


def _with_zero(sums: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(sums[:1], shape=(1, *sums.shape[1:])), sums])


def interpolated_ap(hits: np.ndarray, false: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """COCO's mean of precision over 101 recalls, of curves known at their true positives.

    Args:
        hits, false (np.ndarray): True and false positives up to and with each of the N true
            positives, by falling score; (N, W).
        num_objects (np.ndarray): (W, ).

    Returns:
        np.ndarray: (W, ), nan without objects.
    """
    if not len(hits):
        return np.where(num_objects > 0, 0.0, np.nan)
    precision = hits / np.maximum(hits + false, 1)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    with np.errstate(divide='ignore', invalid='ignore'):
        recall = hits / num_objects
    # How many recalls are reached: floor(100 r) + 1, compared as COCO's evaluation compares.
    guess = np.minimum(np.nan_to_num(recall * 100 + 0.5), 100).astype(np.int32)
    reached = guess + (RECALLS[guess] <= recall)
    new = np.diff(reached, axis=0, prepend=0)
    ap = np.einsum('nw,nw->w', precision, new) / len(RECALLS)
    return np.where(num_objects > 0, ap, np.nan)
