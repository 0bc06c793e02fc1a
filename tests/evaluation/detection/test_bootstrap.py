"""Weighted AP against COCO's evaluation of images that are really repeated."""

import numpy as np
import pytest
from coco_samples import random_coco, with_masks
from intervals import interval

from mmbiformer.evaluation.detection.bootstrap import KINDS, Curve, interpolated_ap, weighted_ap
from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.detection.matches import match
from mmbiformer.evaluation.resampling import draw_weights, mean_of_known
from mmbiformer.evaluation.sizes import size_ranges

IOUS = dict(zip(KINDS, (None, 0.5, 0.75), strict=True))


def run(content, results, iou_type='bbox', measure='side'):
    ground_truth = ground_truth_of(content, 'gt')
    detections = detections_of(results, 'dt', ground_truth)
    return evaluate(ground_truth, detections, size_ranges(measure), iou_type)


def repeat(content, results, times):
    """The data set in which the i-th image (by id) is there times[i] times."""
    images, annotations, repeated = [], [], []
    for image, count in zip(sorted(content['images'], key=lambda x: x['id']), times, strict=True):
        for _ in range(count):
            new = dict(image_id=len(images) + 1)
            images.append({**image, 'id': new['image_id']})
            for record in content['annotations']:
                if record['image_id'] == image['id']:
                    annotations.append({**record, **new, 'id': len(annotations) + 1})
            repeated += [{**x, **new} for x in results if x['image_id'] == image['id']]
    return {**content, 'images': images, 'annotations': annotations}, repeated


def expected_ap(evaluation):
    """(3, A, K)."""
    sizes, categories = range(len(evaluation.ranges)), range(evaluation.num_objects.shape[0])
    ap = evaluation.average_precision
    return np.array(
        [[[ap(a, iou, k) for k in categories] for a in sizes] for iou in IOUS.values()]
    )


@pytest.mark.parametrize('measure', ['side', 'relative_side'])
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_weights_of_one_give_cocos_ap(iou_type, measure):
    for seed in range(5):
        content, results = random_coco(
            np.random.default_rng(seed), 8, objects_per_image=8, detections_per_image=60
        )
        if iou_type == 'segm':
            content, results = with_masks(content, results)
        evaluation = run(content, results, iou_type, measure)
        own = weighted_ap(evaluation, match(evaluation), np.ones((8, 1), np.int32))
        expected = expected_ap(evaluation)
        np.testing.assert_allclose(own[..., 0], expected, rtol=0, atol=1e-12)
        overall = [
            [evaluation.average_precision(a, iou) for a in range(len(evaluation.ranges))]
            for iou in IOUS.values()
        ]
        np.testing.assert_allclose(mean_of_known(own, axis=2)[..., 0], overall, rtol=0, atol=1e-12)


@pytest.mark.parametrize('seed', range(4))
def test_weights_repeat_images(seed):
    rng = np.random.default_rng(seed)
    content, results = random_coco(rng, 6, objects_per_image=6, detections_per_image=25)
    # Repeated images take turns where scores of one image are tied; weights know no turns.
    results = [{**x, 'score': x['score'] + 1e-6 * i} for i, x in enumerate(results)]
    evaluation = run(content, results)
    weights = np.concatenate([draw_weights(6, 3, seed), [[0], [0], [0], [0], [3], [0]]], axis=1)
    own = weighted_ap(evaluation, match(evaluation), weights)
    for i, times in enumerate(weights.T):
        repeated = repeat(content, results, times)
        if repeated[1]:
            expected = expected_ap(run(*repeated))
            np.testing.assert_allclose(own[..., i], expected, rtol=0, atol=1e-12)


def test_more_resamples_than_a_block():
    content, results = random_coco(np.random.default_rng(7), 5)
    evaluation = run(content, results)
    matches, weights = match(evaluation), draw_weights(5, 300, 0)
    own = weighted_ap(evaluation, matches, weights)
    again = [weighted_ap(evaluation, matches, part) for part in np.split(weights, 4, axis=1)]
    np.testing.assert_array_equal(own, np.concatenate(again, axis=-1))


def test_more_than_100_detections_of_a_category():
    sample = dict(num_categories=1, objects_per_image=9, detections_per_image=260)
    evaluation = run(*random_coco(np.random.default_rng(0), 2, **sample))
    matches = match(evaluation)
    assert len(matches.ranked) == 200
    own = weighted_ap(evaluation, matches, np.ones((2, 1), np.int32))
    np.testing.assert_allclose(own[..., 0], expected_ap(evaluation), rtol=0, atol=1e-12)


def test_detections_that_match_nothing():
    content, results = random_coco(np.random.default_rng(0), 3)
    results = [{**x, 'bbox': [500, 500, 10, 10]} for x in results]
    evaluation = run(content, results)
    matches = match(evaluation)
    assert not len(matches.candidates)
    ap = mean_of_known(weighted_ap(evaluation, matches, np.ones((3, 2), np.int32)), axis=2)
    has_objects = evaluation.num_objects.sum(axis=0) > 0
    assert (ap[:, has_objects] == 0).all()
    assert np.isnan(ap[:, ~has_objects]).all()


def test_interval_of_a_mean_is_as_wide_as_theory_says():
    """AP of one object an image, found or not, is the share found: its spread is binomial's."""
    num_images, found = 400, 240
    box = dict(category_id=1, bbox=[0, 0, 50, 50])
    content = dict(
        images=[dict(id=i, height=90, width=90) for i in range(1, num_images + 1)],
        categories=[dict(id=1, name='x')],
        annotations=[dict(id=i, image_id=i, area=2500, **box) for i in range(1, num_images + 1)],
    )
    results = [dict(image_id=i, score=0.9, **box) for i in range(1, found + 1)]
    evaluation = run(content, results)
    weights = draw_weights(num_images, 2000, 0)
    ap = mean_of_known(weighted_ap(evaluation, match(evaluation), weights), axis=2)
    share = found / num_images
    low, high = interval(ap[0, 0], np.array(share))
    assert high - low == pytest.approx(
        2 * 1.96 * np.sqrt(share * (1 - share) / num_images), rel=0.08
    )


def test_intervals_cover():
    """Of 80 data sets, most intervals hold the mean AP, and they are as wide as APs differ."""
    rng = np.random.default_rng(0)
    aps, drawn = [], []
    for seed in range(80):
        content, results = random_coco(rng, 40, 3, objects_per_image=3, detections_per_image=5)
        used = {x['category_id'] for x in content['annotations']}
        content['categories'] = [x for x in content['categories'] if x['id'] in used]
        results = [x for x in results if x['category_id'] in used]
        evaluation = run(content, results)
        weights = draw_weights(40, 200, seed)
        ap = weighted_ap(evaluation, match(evaluation), weights)
        drawn.append(mean_of_known(ap, axis=2)[0, 0])
        aps.append(evaluation.average_precision())
    aps, drawn = np.array(aps), np.array(drawn)
    low, high = interval(drawn, aps)
    assert np.mean((low <= aps.mean()) & (aps.mean() <= high)) >= 0.88
    assert (high - low).mean() == pytest.approx(2 * 1.96 * aps.std(), rel=0.25), 'no wider than so'
    assert drawn.mean() > aps.mean() + 0.005, 'resamples repeat images'
    assert ((low <= aps) & (aps <= high)).all()


def test_the_example_of_a_curve():
    """Two images, three detections: what the docstring of Curve says, and what comes of it."""
    curve = Curve.of(
        images=np.array([0, 1, 1]),
        is_in_range=np.ones(3, bool),
        candidates=np.array([0, 2]),
        matched=np.array([0, 1]),
        is_counted=np.ones(2, bool),
    )
    assert curve.true_images.tolist() == curve.matched_images.tolist() == [0, 1]
    assert (curve.num_in_range.tolist(), curve.num_matched.tolist()) == ([1, 3], [1, 2])
    weights = np.array([[1, 2, 0], [1, 0, 2]])
    sums_in_range = np.array([[0, 0, 0], [1, 2, 0], [2, 2, 2], [3, 2, 4]])
    expected = [(51 + 50 * 2 / 3) / 101, 1, 1 / 2]
    ap = curve.average_precision(weights, sums_in_range, np.array([2, 2, 2]))
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-12)

    box, elsewhere = [0, 0, 50, 50], [100, 100, 50, 50]
    content = dict(
        images=[dict(id=i, height=200, width=200) for i in range(2)],
        categories=[dict(id=1, name='x')],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1, area=2500, bbox=box) for i in range(2)
        ],
    )
    results = [
        dict(image_id=image, category_id=1, score=score, bbox=place)
        for image, score, place in ((0, 0.9, box), (1, 0.8, elsewhere), (1, 0.7, box))
    ]
    evaluation = run(content, results)
    ap = mean_of_known(weighted_ap(evaluation, match(evaluation), weights), axis=2)
    np.testing.assert_allclose(ap[:, 0], [expected] * 3, rtol=0, atol=1e-12)


def test_a_match_of_another_size_counts_neither_way():
    """The second detection matches an object outside the range: no false positive in it."""
    curve = Curve.of(
        images=np.array([0, 0, 1]),
        is_in_range=np.array([True, True, False]),
        candidates=np.array([1, 2]),
        matched=np.array([0, 1]),
        is_counted=np.array([False, True]),
    )
    assert (curve.true_images.tolist(), curve.matched_images.tolist()) == ([1], [0])
    assert (curve.num_in_range.tolist(), curve.num_matched.tolist()) == ([2], [1])


def test_interpolation_by_hand():
    """Two of four objects found, first and third: precision 1 up to recall 1/4, 2/3 up to 1/2."""
    hits, false = np.array([[1], [2]]), np.array([[0], [1]])
    ap = interpolated_ap(hits, false, np.array([4]))
    assert ap[0] == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert np.isnan(interpolated_ap(hits * 0, false, np.array([0]))[0])
