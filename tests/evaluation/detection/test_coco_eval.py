"""AP and AR in size ranges against pycocotools, on 2,000 random data sets."""

import numpy as np
import pytest
from coco_samples import random_coco, with_masks
from pycocotools_oracle import run_pycocotools

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.sizes import COCO_RANGES, size_ranges

RELATIVE = dict(few=(0, 0.1), more=(0.1, 0.4), whole=(0.4, float('inf')))


def run(content, results, ranges, iou_type='bbox'):
    ground_truth = ground_truth_of(content, 'gt')
    return evaluate(ground_truth, detections_of(results, 'dt', ground_truth), ranges, iou_type)


def assert_equal(evaluation, oracle, ranges=slice(None)):
    for name, axis in (('precision', 3), ('recall', 2)):
        own = np.moveaxis(getattr(evaluation, name), axis, 0)[ranges]
        expected = np.moveaxis(oracle.eval[name], axis, 0)
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('group', range(19))
def test_2000_random_data_sets(group):
    """The first 1,900: few and many objects, areas on bounds, crowds, empty classes and images."""
    octaves = size_ranges()
    for seed in range(100 * group, 100 * group + 100):
        rng = np.random.default_rng(seed)
        content, results = random_coco(
            rng,
            num_images=int(rng.integers(1, 4)),
            num_categories=int(rng.integers(1, 4)),
            objects_per_image=float(rng.choice([0.5, 3, 8])),
            detections_per_image=120 if seed % 50 == 0 else float(rng.choice([1, 6, 15])),
            crowds=float(rng.choice([0, 0.2])),
        )
        if results:
            ranges = (*COCO_RANGES, *octaves)
            oracle = run_pycocotools(content, results, ranges)
            assert_equal(run(content, results, octaves), oracle)


def test_2000_random_data_sets_masks():
    """The last 100."""
    octaves = size_ranges()
    for seed in range(1900, 2000):
        rng = np.random.default_rng(seed)
        content, results = with_masks(*random_coco(rng, num_images=2, detections_per_image=5))
        if results:
            oracle = run_pycocotools(content, results, (*COCO_RANGES, *octaves), 'segm')
            assert_equal(run(content, results, octaves, 'segm'), oracle)


def test_more_than_100_detections_of_a_category():
    rng = np.random.default_rng(0)
    sample = dict(num_images=2, num_categories=1, objects_per_image=9, detections_per_image=260)
    content, results = random_coco(rng, **sample)
    assert len(results) > 400
    oracle = run_pycocotools(content, results, COCO_RANGES)
    assert_equal(run(content, results, size_ranges()), oracle, slice(4))


@pytest.mark.parametrize('measure', ['side', 'relative_side'])
def test_more_categories_than_are_judged_at_a_time(measure):
    rng = np.random.default_rng(6)
    content, results = random_coco(rng, 12, 95, objects_per_image=20, detections_per_image=60)
    oracle = run_pycocotools(content, results, COCO_RANGES)
    assert_equal(run(content, results, size_ranges(measure)), oracle, slice(4))


def test_summary_is_that_of_pycocotools():
    content, results = random_coco(np.random.default_rng(1), num_images=20)
    stats = run_pycocotools(content, results, COCO_RANGES).stats
    evaluation = run(content, results, size_ranges())
    ap, ar = evaluation.average_precision, evaluation.average_recall
    own = [ap(), ap(iou=0.5), ap(iou=0.75), ap(1), ap(2), ap(3)]
    own += [ar(max_detections=1), ar(max_detections=10), ar(), ar(1), ar(2), ar(3)]
    np.testing.assert_allclose(own, stats, rtol=0, atol=1e-12)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_relative_sizes(iou_type):
    """Equal to absolute ones where all images are of one size; checked on areas of fractions."""
    content, results = random_coco(np.random.default_rng(2), num_images=12)
    if iou_type == 'segm':
        content, results = with_masks(content, results)
    ranges = size_ranges('relative_side', RELATIVE)
    absolute = size_ranges('side', {k: (200 * a, 200 * b) for k, (a, b) in RELATIVE.items()})
    own = run(content, results, ranges, iou_type)
    other = run(content, results, absolute, iou_type)
    np.testing.assert_array_equal(own.precision, other.precision)
    np.testing.assert_array_equal(own.num_objects, other.num_objects)
    np.testing.assert_array_equal(own.detection_in_range, other.detection_in_range)


def test_relative_sizes_differ_by_image():
    """A box of 40 x 40 is a fifth of one image, and two fifths of the other."""
    box = dict(category_id=1, bbox=[0, 0, 40, 40])
    content = dict(
        images=[dict(id=i, height=200 // i, width=200 // i) for i in (1, 2)],
        categories=[dict(id=1, name='x')],
        annotations=[dict(id=i, image_id=i, area=1600, **box) for i in (1, 2)],
    )
    results = [dict(image_id=2, score=0.5, **box)]
    evaluation = run(content, results, size_ranges('relative_side', RELATIVE))
    assert evaluation.num_objects[0, 4:].tolist() == [0, 1, 1]
    aps = [evaluation.average_precision(i) for i in range(7)]
    np.testing.assert_array_equal(np.isnan(aps), [False, True, False, True, True, False, False])
    assert aps[5:] == [0, pytest.approx(1)]


def test_counts_of_objects():
    content, results = random_coco(np.random.default_rng(3), num_images=30, crowds=0.3)
    evaluation = run(content, results, size_ranges())
    real = [x for x in content['annotations'] if not x['iscrowd']]
    assert evaluation.num_objects[:, 0].sum() == len(real)
    assert evaluation.num_objects[:, 4:].sum() == len(real)
    on_bound = sum(x['area'] in (32**2, 96**2) for x in real)
    assert on_bound > 3
    assert evaluation.num_objects[:, 1:4].sum() == len(real) + on_bound
    ids = [x['id'] for x in content['categories']]
    for k, category in enumerate(ids):
        small = [x for x in real if x['category_id'] == category and x['area'] < 64]
        assert evaluation.num_objects[k, 4] == len(small)


def test_empty_ranges_and_categories_have_no_ap():
    content, results = random_coco(np.random.default_rng(4), num_images=5)
    evaluation = run(content, results, size_ranges())
    (empty,) = np.flatnonzero(evaluation.num_objects[:, 0] == 0)
    assert np.isnan(evaluation.average_precision(category=empty))
    assert np.isnan(evaluation.average_precision(11))
    assert np.isnan(evaluation.average_recall(11))
    assert evaluation.num_objects[:, 11].sum() == 0


def test_boxes_or_masks_that_are_not_there():
    content, results = random_coco(np.random.default_rng(5))
    with pytest.raises(UserError, match="annotation 1 of 'gt' has no segmentation: judge by iou"):
        run(content, results, size_ranges(), 'segm')
    with pytest.raises(UserError, match="record 0 of 'dt' has no bbox: judge by iou type segm"):
        run(*with_masks(content, results), size_ranges(), 'bbox')
