"""Slices by SAHI: every box is one of a slice or of the whole, at its place."""

import io
import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from prediction_cases import DETECTOR, MASKS, noise, untrained

from mmbiformer.prediction import Predictor

pytest.importorskip('sahi', reason="no SAHI: pip install -e '.[sahi]'")
SIDE = 96


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('sliced')


@pytest.fixture(scope='module')
def detector(folder):
    return str(DETECTOR), str(untrained(DETECTOR, folder)), 'cpu'


def rows_of(sample, left=0, top=0):
    """Box, score and label of every object, for an image that begins there."""
    found = sample.pred_instances
    boxes = found.bboxes + torch.tensor([left, top, left, top])
    columns = boxes, found.scores[:, None], found.labels[:, None]
    return torch.cat([x.double() for x in columns], 1)


@pytest.mark.parametrize('batch_size', [1, 4])
def test_every_box_is_of_a_slice_or_of_the_whole(detector, batch_size):
    from sahi.slicing import get_slice_bboxes

    image = noise(1, 128, 160)
    whole = Predictor(*detector)
    expected = [rows_of(whole(image))]
    slices = get_slice_bboxes(128, 160, slice_height=SIDE, slice_width=SIDE)
    for left, top, right, bottom in slices:
        cut = np.ascontiguousarray(image[top:bottom, left:right])
        expected.append(rows_of(whole(cut), left, top))
    expected = torch.cat(expected)
    expected[:, [0, 2]] = expected[:, [0, 2]].clamp(0, 160)
    expected[:, [1, 3]] = expected[:, [1, 3]].clamp(0, 128)
    (sample,) = Predictor(*detector, slice_side=SIDE).predict([image], batch_size)
    found = rows_of(sample)
    assert len(slices) == 4
    assert 20 < len(found) < len(expected)
    distances = (found[:, None] - expected).abs().amax(-1)
    assert distances.min(dim=1).values.max() < 0.01
    from_slices = distances[:, len(rows_of(whole(image))) :].min(dim=1).values < 0.01
    assert from_slices.any()
    assert (found[:, 4].diff() <= 0).all()
    assert sample.ori_shape == (128, 160)


def test_an_image_within_a_slice_is_predicted_once(detector):
    image = noise(2, 60, 80)
    found = rows_of(Predictor(*detector, slice_side=SIDE)(image))
    expected = rows_of(Predictor(*detector)(image))
    assert 0 < len(found) <= len(expected)
    distances = (found[:, None] - expected).abs().amax(-1)
    assert distances.min(dim=1).values.max() < 0.01


def test_what_finds_masks_gives_boxes_and_says_so(folder):
    config = folder / 'masks.py'
    config.write_text(MASKS)
    checkpoint = str(untrained(config, folder))
    logger, said = MMLogger.get_current_instance(), io.StringIO()
    logger.addHandler(handler := logging.StreamHandler(said))
    predictor = Predictor(str(config), checkpoint, 'cpu', slice_side=SIDE)
    logger.removeHandler(handler)
    assert said.getvalue().endswith('--sliced gives boxes, and no masks\n')
    found = predictor(noise(3, 128, 160)).pred_instances
    assert len(found) > 5
    assert 'masks' not in found
