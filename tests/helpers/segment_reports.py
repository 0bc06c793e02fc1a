"""Small reports of segmenters, for the tests of what is written and drawn of them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from size_reports import HOSTILE

from mmbiformer.evaluation.formatting import interval_points, points
from mmbiformer.evaluation.report_data import Report
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_files import FolderCounts
from mmbiformer.evaluation.segmentation.segment_report import segment_report
from mmbiformer.evaluation.segmentation.segment_sizes import (
    SegmentCounts,
    count_segments,
    find_segments,
    segment_ranges,
)
from mmbiformer.evaluation.segmentation.segment_tables import DECIMALS
from mmbiformer.evaluation.sizes import SizeRange

# As the reports on segmenters show scores.
percent = partial(points, decimals=DECIMALS)
interval_percent = partial(interval_points, decimals=DECIMALS)

CLASSES = ('wall', 'door', 'lamp', 'sky', 'sea')
IGNORED = 255
RANGES = segment_ranges(
    'side', {f'{2**i}-{2 ** (i + 1)}': (2.0**i, 2.0 ** (i + 1)) for i in range(6)}
)
# Positions of the range that one image alone has, and of the one that none has.
ALONE, EMPTY = 5, 6


def label_maps(rng: np.random.Generator, num_images: int) -> list[np.ndarray]:
    """Blocks of 3 x 3 and larger segments of them; the first image is one segment.

    'sky' and 'sea' are nowhere.
    """
    maps = []
    for _ in range(num_images):
        labels = rng.choice([0, 1, 2, IGNORED], (7, 7), p=[0.4, 0.2, 0.2, 0.2])
        labels = labels.repeat(3, 0).repeat(3, 1)
        labels[rng.integers(0, 21, 4), rng.integers(0, 21, 4)] = 2
        maps.append(labels)
    maps[0][:] = 1
    return maps


def predict(rng: np.random.Generator, labels: np.ndarray, noise: float) -> np.ndarray:
    """The ground truth with wrong pixels, some of them as 'sky', which is not in it."""
    wrong = rng.random(labels.shape) < noise
    found = np.where(labels == IGNORED, 0, labels)
    return np.where(wrong, rng.choice([0, 1, 2, 3], labels.shape), found)


def count_models(
    names: Sequence[str] = ('plain', 'better'),
    ranges: Sequence[SizeRange] = RANGES,
    num_images: int = 8,
) -> dict[str, FolderCounts]:
    """Of models that are the better the later they come."""
    rng = np.random.default_rng(5)
    maps = label_maps(rng, num_images)
    folders = {}
    for i, name in enumerate(names):
        counts = []
        for labels in maps:
            prediction = predict(rng, labels, noise=0.6 / (i + 1))
            segments = find_segments(labels, len(CLASSES), IGNORED)
            counts.append(count_segments(prediction, segments, ranges))
        notices = [f'left out of {name}'] + ['left out of the ground truth']
        folders[name] = FolderCounts(f'maps/{name}', SegmentCounts.stack(counts), notices)
    return folders


def make_segment_report(
    names: Sequence[str] = ('plain', 'better'),
    ranges: Sequence[SizeRange] = RANGES,
    bootstrap: Bootstrap | None = None,
    hostile: bool = False,
) -> Report:
    """``hostile`` names are those of the first class and of the folders."""
    folders = count_models(names, ranges)
    classes = list(CLASSES)
    if hostile:
        classes[0] = HOSTILE
        for folder in folders.values():
            folder.path += HOSTILE
    return segment_report(folders, ranges, classes, bootstrap)


def make_report_without_segments(bootstrap: Bootstrap) -> Report:
    """All of the ground truth is ignored."""
    folders = count_models()
    for folder in folders.values():
        for name, counts in vars(folder.counts).items():
            setattr(folder.counts, name, np.zeros_like(counts))
    return segment_report(folders, RANGES, CLASSES, bootstrap)
