"""Semantic segmentation by the size of ground-truth segments.

A segment is a connected component, diagonal neighbours included (8-connectivity), of the pixels of
one class in a ground-truth label map; ignored pixels belong to none, and so can part one. Its size
is its area. A pixel that is falsely given to a class has no ground-truth segment of that class,
and so no size: sizes have a recall of pixels, and IoU is of a class over all sizes.

Letters: I images, K classes, A size ranges, of which the first has all sizes, N segments,
W resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import cv2
import numpy as np

from ..resampling import Bootstrap, intervals, mean_of_known, weigh_images
from ..sizes import SizeRange, size_ranges

ALL_SIZES = SizeRange('all', 0.0, inf)
BY_SIZE = ('pixel_recall', 'class_recall', 'segments_found')
BLOCK = 128  # resamples at a time, so that memory does not grow with their number


@dataclass
class Segments:
    """The segments of one ground-truth label map.

    Attributes:
        labels (np.ndarray): The map, (H, W).
        num_classes (int): K.
        ignore_index (int): Label of the pixels that count neither way.
        numbers (np.ndarray): Which segment each pixel is of, from 1; 0 where it is of none; int32,
            (H, W).
        classes, areas (np.ndarray): Of each segment, areas in pixels; int64, (N, ).
    """

    labels: np.ndarray
    num_classes: int
    ignore_index: int
    numbers: np.ndarray
    classes: np.ndarray
    areas: np.ndarray


@dataclass
class SegmentCounts:
    """Counts of one image; with a leading axis of images (I, ) or of resamples (W, ) of many.

    Attributes:
        segments, found (np.ndarray): Segments of each class and size range, and those of which at
            least half of the pixels are right; (..., K, A).
        pixels, correct (np.ndarray): Their pixels, and the right ones of them; (..., K, A).
        predicted (np.ndarray): Pixels predicted as each class, ignored ones left out; (..., K).
        ignored (np.ndarray): Pixels that the ground truth ignores; (...).
        unpredicted (np.ndarray): Pixels of a class that are predicted as none; (...).
        outside (np.ndarray): Segments in no size range but that of all sizes; (...).
    """

    segments: np.ndarray
    found: np.ndarray
    pixels: np.ndarray
    correct: np.ndarray
    predicted: np.ndarray
    ignored: np.ndarray
    unpredicted: np.ndarray
    outside: np.ndarray

    @classmethod
    def stack(cls, images: Sequence['SegmentCounts']) -> 'SegmentCounts':
        """The counts of single images as one, with a leading axis (I, )."""
        names = vars(images[0])
        return cls(**{name: np.stack([getattr(x, name) for x in images]) for name in names})

    def total(self) -> 'SegmentCounts':
        """The sum over the leading axis, int64."""
        return SegmentCounts(**{name: x.sum(0, np.int64) for name, x in vars(self).items()})

    def weighted(self, weights: np.ndarray) -> 'SegmentCounts':
        """Sums over the images in which each counts as often as its weights (I, W) say."""
        return SegmentCounts(
            **{name: np.tensordot(weights.T.astype(float), x, 1) for name, x in vars(self).items()}
        )


def segment_ranges(
    measure: str = 'side', ranges: Mapping[str, Sequence[float]] | None = None
) -> tuple[SizeRange, ...]:
    """All sizes, and then the ranges of :func:`size_ranges`."""
    return ALL_SIZES, *size_ranges(measure, ranges)


def check_labels(
    name: str, labels: np.ndarray, num_classes: int, ignore_index: int, first: int = 0
) -> None:
    """Check that each label, in any shape, is a class, from 0 to K - 1, or the ignored one.

    Messages call a label ``name``, and class 0 ``first``.

    Raises:
        ValueError: Names the first label that is neither.
    """
    unknown = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)]
    if unknown.size:
        raise ValueError(
            f'{name} {unknown[0] + first} is neither a class ({first} to '
            f'{num_classes - 1 + first}) nor ignored ({ignore_index}) ({unknown.size:,} such '
            'pixels): check the classes and reduce_zero_label'
        )


def find_segments(labels: np.ndarray, num_classes: int, ignore_index: int = 255) -> Segments:
    """Find the segments of a ground-truth label map.

    Args:
        labels (np.ndarray): Integers, (H, W).
        num_classes (int): K; classes are 0 to K - 1.
        ignore_index (int): Label of the pixels that count neither way.

    Raises:
        ValueError: If a label is neither a class nor ignored.
    """
    check_labels('ground-truth label', labels, num_classes, ignore_index)
    numbers = np.zeros(labels.shape, np.int32)
    present = np.flatnonzero(np.bincount(labels[labels != ignore_index]))
    classes = []
    for present_class in present.tolist():
        mask = labels == present_class
        count, own = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        np.add(own, len(classes), out=numbers, where=mask)
        classes += [present_class] * (count - 1)
    areas = np.bincount(numbers.ravel(), minlength=len(classes) + 1)[1:]
    return Segments(labels, num_classes, ignore_index, numbers, np.array(classes, np.int64), areas)


def count_segments(
    prediction: np.ndarray, segments: Segments, ranges: Sequence[SizeRange]
) -> SegmentCounts:
    """Count what a prediction gets right in one image.

    Args:
        prediction (np.ndarray): Predicted classes, (H, W). The ignored label stands for no class:
            its pixels are wrong where the ground truth has a class.
        segments (Segments): Of the ground truth.
        ranges (Sequence[SizeRange]): Of :func:`segment_ranges`; relative ones are fractions of
            H x W.

    Raises:
        ValueError: If the prediction has another size than the ground truth, or a label that is
            neither a class nor ignored.
    """
    labels, num_classes = segments.labels, segments.num_classes
    classes, areas = segments.classes, segments.areas
    if prediction.shape != labels.shape:
        ours, theirs = (' x '.join(map(str, x.shape)) for x in (prediction, labels))
        raise ValueError(
            f'the prediction has {ours} pixels (height x width), its ground truth {theirs}: '
            'resize the scores of the classes to the ground truth before the best is taken'
        )
    check_labels('predicted label', prediction, num_classes, segments.ignore_index)
    is_labelled = labels != segments.ignore_index
    chosen = prediction[is_labelled]
    chosen = chosen[(chosen >= 0) & (chosen < num_classes)]
    hits = np.bincount(segments.numbers[prediction == labels], minlength=len(classes) + 1)[1:]
    is_found = 2 * hits >= areas
    in_range = [x.holds(areas / labels.size if x.relative else areas) for x in ranges]

    def by_class_and_size(values: np.ndarray) -> np.ndarray:
        columns = [np.bincount(classes[held], values[held], num_classes) for held in in_range]
        return np.stack(columns, axis=1).astype(np.int32)

    return SegmentCounts(
        segments=by_class_and_size(np.ones(len(is_found))),
        found=by_class_and_size(is_found),
        pixels=by_class_and_size(areas),
        correct=by_class_and_size(hits),
        predicted=np.bincount(chosen, minlength=num_classes).astype(np.int32),
        ignored=np.int32(labels.size - is_labelled.sum()),
        unpredicted=np.int32(is_labelled.sum() - len(chosen)),
        outside=np.int32((~np.any(in_range[1:], axis=0)).sum()),
    )


def scores(counts: SegmentCounts) -> dict[str, np.ndarray]:
    """Scores of summed counts, as fractions; nan where there is nothing to take a share of.

    Returns:
        dict: IoU of each class, (..., K), and mIoU, its mean over the classes that are in the
        ground truth or in a prediction, (...), as mmseg's IoUMetric; recall and found, the shares
        below of each class and size range, (..., K, A); and of each size range, (..., A):

        - pixel_recall: share of its pixels that are right, over all classes, so that large
          segments and frequent classes count most (micro; of all sizes it is mmseg's aAcc)
        - class_recall: mean of that share over the classes that have pixels in the range (macro;
          of all sizes it is mmseg's mAcc)
        - segments_found: share of its segments of which at least half of the pixels are right
    """
    intersection = counts.correct[..., 0]
    iou = share(intersection, counts.pixels[..., 0] + counts.predicted - intersection)
    recall = share(counts.correct, counts.pixels)
    return dict(
        IoU=iou,
        mIoU=mean_of_known(iou, axis=-1),
        recall=recall,
        found=share(counts.found, counts.segments),
        pixel_recall=share(counts.correct.sum(-2), counts.pixels.sum(-2)),
        class_recall=mean_of_known(recall, axis=-2),
        segments_found=share(counts.found.sum(-2), counts.segments.sum(-2)),
    )


def score_intervals(
    counts: SegmentCounts, bootstrap: Bootstrap, reference: SegmentCounts | None = None
) -> dict[str, np.ndarray]:
    """95 % intervals of the bootstrap over images; see :func:`intervals`.

    Args:
        counts (SegmentCounts): Stacked, (I, ...).
        bootstrap (Bootstrap): How the images are resampled.
        reference (SegmentCounts, optional): Those of another model on the same images; the
            intervals are then of ours minus theirs, on the same resamples.

    Returns:
        dict: Low and high of mIoU, (2, ), and of the scores by size, (A, 2). Resamples without a
        pixel in a range are left out there; nan where fewer than 5 images have any.

    Raises:
        ValueError: If the reference has another ground truth.
    """
    if reference is not None and not np.array_equal(counts.pixels, reference.pixels):
        raise ValueError('the counts to compare are of another ground truth or of other ranges')
    weights = weigh_images(len(counts.ignored), bootstrap)
    samples = {name: [] for name in ('mIoU', *BY_SIZE)}
    for start in range(0, weights.shape[1], BLOCK):
        block = weights[:, start : start + BLOCK]
        ours = scores(counts.weighted(block))
        theirs = scores(reference.weighted(block)) if reference is not None else None
        for name, parts in samples.items():
            parts.append(ours[name] - theirs[name] if theirs else ours[name])
    images = images_by_size(counts)
    return {
        name: intervals(
            np.moveaxis(np.concatenate(parts), 0, -1),
            images if name in BY_SIZE else images[0],
            is_difference=reference is not None,
        )
        for name, parts in samples.items()
    }


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore'):
        return np.asarray(np.true_divide(part, whole))


def images_by_size(counts: SegmentCounts) -> np.ndarray:
    """How many images have segments in each range, (A, )."""
    return counts.segments.any(axis=1).sum(axis=0)
