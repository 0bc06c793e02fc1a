"""Broken masks are found, sound ones are not."""

import re

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmbiformer.evaluation.detection.rle import find_broken, rle_problem


def encode(mask):
    return mask_api.encode(np.asfortranarray(mask, np.uint8))['counts']


@pytest.fixture(scope='module')
def masks():
    """Noise, blobs with long runs, empty and full ones; of many sizes."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(200):
        height, width = rng.integers(1, 40, 2)
        made.append(rng.random((height, width)) < rng.random())
        blob = np.zeros((height * 20, width * 20))
        blob[height : height * 9, width * 2 : width * 15] = 1
        made.append(blob)
    return [*made, np.zeros((30, 50)), np.ones((30, 50)), np.zeros((3000, 4000))]


def test_sound_masks(masks):
    counts, pixels = [encode(x) for x in masks], [x.size for x in masks]
    assert find_broken(counts, pixels) is None
    assert find_broken([x.decode() for x in counts], pixels) is None
    assert find_broken([], []) is None


def test_cut_and_changed_masks(masks):
    counts, pixels = [encode(x) for x in masks], [x.size for x in masks]
    for position in (0, 7, 100, len(masks) - 1):
        for text in (counts[position][:-1], counts[position] + b'1', b'\xff', b'o' * 9):
            changed = [*counts]
            changed[position] = text
            assert find_broken(changed, pixels) == position, text
    fewer = [*pixels]
    fewer[5] -= 1
    assert find_broken(counts, fewer) == 5
    # Runs 3, -1, 2: right in sum.
    assert find_broken([b'3O2'], [4]) == 0


@pytest.mark.parametrize(
    ('mask', 'problem'),
    [
        (dict(size=[2, 3], counts='06'), None),
        (dict(size=(2, 3), counts=[0, 6]), None),
        ([[1, 2, 3, 4, 5, 6]], 'no run-length encoding'),
        (dict(counts='06'), 'no run-length encoding'),
        (dict(size=[3, 2], counts='06'), r'height and width \[3, 2\], its image has \[2, 3\]'),
        (dict(size=None, counts='06'), 'height and width None'),
        (dict(size=[2, 3], counts=None), 'not runs of its 6 pixels'),
        (dict(size=[2, 3], counts=[2, 3]), 'not runs of its 6 pixels'),
        (dict(size=[2, 3], counts=[9, -3]), 'not runs'),
        (dict(size=[2, 3], counts=['6']), 'not runs'),
    ],
)
def test_form(mask, problem):
    found = rle_problem(mask, 2, 3)
    assert (problem is None and found is None) or re.search(problem, found)
