"""Small label maps, written as text, and what is counted in them."""

from math import inf

import numpy as np

from mmbiformer.evaluation.segmentation.segment_sizes import (
    SegmentCounts,
    count_segments,
    find_segments,
    segment_ranges,
)

# From 1 to below 4 pixels, to below 9, and none so large.
RANGES = segment_ranges('area', {'1-4': (1, 4), '4-9': (4, 9), '100+': (100, inf)})
IGNORED = 255


def parse(*rows):
    """A label map: digits are classes, dots are ignored."""
    return np.array([[IGNORED if x == '.' else int(x) for x in row] for row in rows], np.uint8)


def count(prediction, labels, ranges=RANGES, num_classes=4, ignore_index=IGNORED):
    return count_segments(prediction, find_segments(labels, num_classes, ignore_index), ranges)


def one(counts):
    return SegmentCounts.stack([counts])
