"""Places of an image in what a model sees of it, found for pipelines as configs have them."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmbiformer.engine.images import ImagePipeline
from mmbiformer.errors import UserError
from mmbiformer.visualization.placement import find_placement, find_stride

PACK = dict(type='PackInputs')
LOAD = dict(type='LoadImageFromFile')
PIPELINES = {
    'a detector': (
        'mmdet',
        [
            dict(type='Resize', scale=(200, 150), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_path', 'scale_factor')),
        ],
        # 80 x 120: 200 / 120 is less than 150 / 80
        ((200 / 120, 133 / 80), (0, 0)),
    ),
    'flipped and padded': (
        'mmdet',
        [
            dict(type='RandomFlip', prob=1.0),
            dict(type='Pad', size_divisor=32),
            dict(type='PackDetInputs', meta_keys=('img_path',)),
        ],
        ((-1, 1), (120, 0)),
    ),
    'a segmenter': (
        'mmseg',
        [
            dict(type='Resize', scale=(2048, 160), keep_ratio=True),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs', meta_keys=('img_path',)),
        ],
        ((2, 2), (0, 0)),
    ),
    'a classifier': (
        'mmpretrain',
        [
            dict(
                type='ResizeEdge',
                scale=64,
                edge='short',
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='CenterCrop', crop_size=56),
            PACK,
        ],
        # 96 x 64, of which 56 x 56 remain
        ((0.8, 0.8), (-20, -4)),
    ),
}


@pytest.mark.parametrize(('scope', 'steps', 'expected'), PIPELINES.values(), ids=PIPELINES)
def test_placements_of_pipelines(scope, steps, expected):
    pipeline = pipeline_of(scope, steps)
    placement = find_placement(pipeline.place, 80, 120)
    np.testing.assert_allclose(placement, expected, atol=2e-3)
    np.testing.assert_allclose(placement.to_image(*placement.to_input(31, 7)), (31, 7))


def test_finding_a_placement_leaves_the_pipeline_as_it_was():
    _, steps, _ = PIPELINES['a classifier']
    pipeline = pipeline_of('mmpretrain', steps)
    find_placement(pipeline.place, 80, 120)
    assert pipeline.steps[0].backend == 'pillow'
    assert pipeline.steps[0].interpolation == 'bicubic'


def test_a_pipeline_that_turns_images_is_refused():
    with pytest.raises(UserError, match='turns images'):
        find_placement(lambda x: x.permute(2, 1, 0), 80, 120)


def test_an_image_without_an_inside_is_refused():
    with pytest.raises(UserError, match='an image of 1 x 90 pixels is too small'):
        find_placement(lambda x: x.permute(2, 0, 1), 90, 1)


def pipeline_of(scope: str, steps: list[dict]) -> ImagePipeline:
    __import__(f'{scope}.datasets')
    dataset = dict(type='Any', pipeline=[LOAD, *steps])
    cfg = Config(dict(default_scope=scope, test_dataloader=dict(dataset=dataset)))
    return ImagePipeline(cfg)


@pytest.mark.parametrize(
    ('input_size', 'map_size', 'stride'),
    [
        (800, 200, 4),
        (800, 25, 32),
        (333, 84, 4),
        (333, 83, 4),
        (40, 2, 32),
        (40, 3, 16),
        (7, 7, 1),
    ],
)
def test_strides(input_size, map_size, stride):
    assert find_stride(input_size, map_size) == stride


def test_a_stride_that_is_no_power_of_two():
    assert find_stride(300, 100) == pytest.approx(3)


def test_coordinates_are_those_of_pixels():
    """The middle of a pixel of the image goes to the middle of what it becomes."""
    placement = find_placement(
        lambda x: torch.nn.functional.interpolate(
            x.permute(2, 0, 1)[None], scale_factor=2, mode='bilinear'
        )[0],
        40,
        50,
    )
    np.testing.assert_allclose(placement.to_input(10.5, 3.5), (21, 7), atol=1e-4)
