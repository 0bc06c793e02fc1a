"""How far AP would move on other images: the bootstrap over images.

A resample draws as many images as there are, with replacement. Matching happens within an image,
so a resample is a weight per image, and AP of thousands of them is a matter of cumulative sums.

Letters: I images, K categories, A size ranges, N true positives, W resamples.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    ranked_categories = evaluation.detections.category[matches.ranked]
    work = partial(_category_ap, evaluation, matches, weights, ranked_categories)
    # NumPy lets go of the interpreter's lock in its long loops.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(work, range(num_categories))
        done = tqdm(done, 'bootstrap', num_categories, unit=' categories', disable=not progress)
        return np.stack(list(done), axis=2)


@dataclass(frozen=True)
class Curve:
    """Where a precision-recall curve can change, at one IoU threshold in one size range.

    A resample changes how often a detection counts, and neither the order of the detections nor
    what they match. Hence this is computed once, and only sums of weights are left to each one.
    A detection whose own size is in the range is a false positive unless it matches something, so
    false positives are counted as the detections in the range less the matched ones of them.

    Attributes:
        true_images (np.ndarray): Image of each true positive, a detection that matches an object
            of the range; by falling score, (N, ).
        matched_images (np.ndarray): Image of each detection that matches any object and is itself
            in the range, and so is no false positive; by falling score, (M, ).
        num_in_range (np.ndarray): How many detections that are in the range come no later than
            each true positive, (N, ).
        num_matched (np.ndarray): How many of these are matched, (N, ).

    Example:
        Two images with one object each, all sizes in the range. The detections by falling score
        are on the images 0, 1 and 1, and match the first object, none, and the second one::

            true_images = [0, 1]     matched_images = [0, 1]
            num_in_range = [1, 3]    num_matched = [1, 2]

        Three resamples weigh the images by 1 and 1, 2 and 0, 0 and 2; each has two objects. Up to
        and with each of the two true positives there are::

            true positives              1, 2        2, 2        0, 2
            detections in the range     1, 3        2, 2        0, 4
            matched ones of them        1, 2        2, 2        0, 2
            false positives             0, 1        0, 0        0, 2
            precision                   1, 2/3      1, 1        0, 1/2
            recall                      1/2, 1      1, 1        0, 1

        Precision is 1 at the 51 recalls up to 1/2 and 2/3 at the other 50 in the first resample,
        and 1 and 1/2 at all 101 in the others: AP is (51 + 50 * 2/3) / 101, 1 and 1/2.
    """

    true_images: np.ndarray
    matched_images: np.ndarray
    num_in_range: np.ndarray
    num_matched: np.ndarray

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        is_in_range: np.ndarray,
        candidates: np.ndarray,
        matched: np.ndarray,
        is_counted: np.ndarray,
    ) -> 'Curve':
        """The curve of one category.

        Args:
            images (np.ndarray): Image of each detection of the category, by falling score.
            is_in_range (np.ndarray): Which of them have a size in the range.
            candidates (np.ndarray): Positions of those among them that can match.
            matched (np.ndarray): Object of each candidate, or -1.
            is_counted (np.ndarray): Which objects the range counts.
        """
        is_matched = matched >= 0
        positions, objects = candidates[is_matched], matched[is_matched]
        true = positions[is_counted[objects]]
        matched_in_range = positions[is_in_range[positions]]
        return cls(
            true_images=images[true],
            matched_images=images[matched_in_range],
            num_in_range=is_in_range.cumsum()[true],
            num_matched=np.searchsorted(matched_in_range, true, side='right'),
        )

    def average_precision(
        self, weights: np.ndarray, sums_in_range: np.ndarray, num_objects: np.ndarray
    ) -> np.ndarray:
        """AP of each resample, (W, ).

        Args:
            weights (np.ndarray): Of the images, (I, W).
            sums_in_range (np.ndarray): Sums of the weights of the first 0, 1, 2, ... detections
                that are in the range; they are those of every IoU threshold.
            num_objects (np.ndarray): Of each resample, (W, ).
        """
        true = weights[self.true_images].cumsum(axis=0)
        matched = _sums(weights[self.matched_images])[self.num_matched]
        return interpolated_ap(true, sums_in_range[self.num_in_range] - matched, num_objects)


def _category_ap(
    evaluation: SizeEvaluation,
    matches: Matches,
    weights: np.ndarray,
    ranked_categories: np.ndarray,
    category: int,
) -> np.ndarray:
    """(3, A, W); ``ranked_categories`` are those of the ranked detections, ascending."""
    ground_truth = evaluation.ground_truth
    begin, end = np.searchsorted(ranked_categories, (category, category + 1))
    ranked = matches.ranked[begin:end]
    images = evaluation.detections.image[ranked]
    own = slice(*np.searchsorted(matches.candidates, (begin, end)))
    candidates = matches.candidates[own] - begin
    matched = matches.matched[:, :, own]
    is_of_category = ground_truth.category == category
    ap = np.full((len(KINDS), len(evaluation.ranges), weights.shape[1]), np.nan)
    for a, is_counted in enumerate(evaluation.object_in_range):
        object_images = ground_truth.image[is_counted & is_of_category]
        if not len(object_images):
            continue
        is_in_range = evaluation.detection_in_range[a, ranked]
        curves = [Curve.of(images, is_in_range, candidates, x[a], is_counted) for x in matched]
        images_in_range = images[is_in_range]
        for start in range(0, weights.shape[1], BLOCK):
            block = weights[:, start : start + BLOCK]
            num_objects = block[object_images].sum(axis=0)
            sums_in_range = _sums(block[images_in_range])
            by_threshold = np.stack(
                [x.average_precision(block, sums_in_range, num_objects) for x in curves]
            )
            for kind, thresholds in enumerate(KINDS.values()):
                ap[kind, a, start : start + BLOCK] = by_threshold[thresholds].mean(axis=0)
    return ap


def _sums(weights: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2, ... of N rows, (1 + N, W)."""
    sums = weights.cumsum(axis=0)
    return np.concatenate([np.zeros_like(sums, shape=(1, *sums.shape[1:])), sums])


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
