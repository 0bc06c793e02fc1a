"""Segments and their scores: by hand, against plain Python, and against mmseg's IoU."""

import pickle
from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.evaluation import IoUMetric
from segment_maps import IGNORED, RANGES, count, one, parse

from mmbiformer.evaluation.resampling import Bootstrap, draw_weights
from mmbiformer.evaluation.segmentation.segment_sizes import (
    BY_SIZE,
    SegmentCounts,
    find_segments,
    score_intervals,
    scores,
    segment_ranges,
)

SCORES = ('mIoU', *BY_SIZE)


def score(counts):
    return scores(one(counts).total())


def random_maps(rng, num_classes=4, shape=(7, 9), noise=0.3):
    """A coarse ground truth with ignored pixels, and a noisy prediction of it."""
    coarse = rng.integers(0, num_classes + 1, (-(-shape[0] // 2), -(-shape[1] // 2)))
    labels = coarse.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]
    labels = np.where(rng.random(shape) < 0.2, rng.integers(0, num_classes + 1, shape), labels)
    wrong = rng.random(shape) < noise
    prediction = np.where(wrong, rng.integers(0, num_classes, shape), labels % num_classes)
    return prediction, np.where(labels == num_classes, IGNORED, labels)


def flood(labels, ignore_index):
    """Segments as (class, set of pixels), one pixel at a time."""
    height, width = labels.shape
    left = {(y, x) for y in range(height) for x in range(width) if labels[y, x] != ignore_index}
    found = []
    while left:
        start = left.pop()
        segment, pending = {start}, [start]
        while pending:
            y, x = pending.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left and labels[near] == labels[start]:
                    left.remove(near)
                    segment.add(near)
                    pending.append(near)
        found.append((int(labels[start]), segment))
    return found


def plain_scores(pairs, ranges, num_classes):
    """name -> a value per range, of images (prediction, labels), without any arrays of counts."""
    rows = {name: [] for name in BY_SIZE}
    for size in ranges:
        by_class = {k: [0, 0] for k in range(num_classes)}
        found = []
        for prediction, labels in pairs:
            for k, segment in flood(labels, IGNORED):
                area = len(segment) / (labels.size if size.relative else 1)
                if size.low <= area < size.high:
                    right = sum(prediction[at] == k for at in segment)
                    by_class[k][0] += right
                    by_class[k][1] += len(segment)
                    found.append(right / len(segment) >= 0.5)
        shares = [right / pixels for right, pixels in by_class.values() if pixels]
        pixels = sum(x for _, x in by_class.values())
        right = sum(x for x, _ in by_class.values())
        rows['pixel_recall'].append(right / pixels if pixels else nan)
        rows['class_recall'].append(sum(shares) / len(shares) if shares else nan)
        rows['segments_found'].append(sum(found) / len(found) if found else nan)
    return rows


def test_by_hand():
    labels = parse(
        '00000',
        '11022',
        '11022',
        '000.2',
    )
    prediction = parse(
        '00000',
        '11002',
        '10002',
        '00010',
    )
    # wall: 10 pixels, all right; door: 4 of them, 3 right; lamp: 5 of them, 2 right.
    result = count(prediction, labels)
    assert result.segments.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [0] * 4]
    assert result.pixels.tolist() == [[10, 0, 0, 0], [4, 0, 4, 0], [5, 0, 5, 0], [0] * 4]
    assert result.correct.tolist() == [[10, 0, 0, 0], [3, 0, 3, 0], [2, 0, 2, 0], [0] * 4]
    assert result.found.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0] * 4]
    # The ignored pixel, predicted as door, is no pixel of the prediction.
    assert result.predicted.tolist() == [14, 3, 2, 0]
    assert (result.ignored, result.unpredicted, result.outside) == (1, 0, 1)
    values = score(result)
    np.testing.assert_allclose(values['IoU'], [10 / 14, 3 / 4, 2 / 5, nan])
    np.testing.assert_allclose(values['mIoU'], (10 / 14 + 3 / 4 + 2 / 5) / 3)
    np.testing.assert_allclose(values['pixel_recall'], [15 / 19, nan, 5 / 9, nan])
    np.testing.assert_allclose(
        values['class_recall'], [(1 + 3 / 4 + 2 / 5) / 3, nan, (3 / 4 + 2 / 5) / 2, nan]
    )
    np.testing.assert_allclose(values['segments_found'], [2 / 3, nan, 1 / 2, nan])


@pytest.mark.parametrize(
    ('area', 'column'), [(1, 1), (3, 1), (4, 2), (8, 2)], ids=lambda x: str(x)
)
def test_a_range_has_its_low_bound_and_not_its_high_one(area, column):
    labels = np.full((1, 12), IGNORED)
    labels[0, :area] = 1
    segments = count(labels, labels).segments[1]
    assert segments.tolist() == [1, *(int(i == column) for i in (1, 2, 3))]


def test_sides_are_of_the_square_of_equal_area():
    labels = np.ones((8, 8), np.uint8)
    ranges = segment_ranges('side')
    assert [x.name for x in ranges[:3]] == ['all', '0-8', '8-16']
    assert count(labels, labels, ranges).segments[1, :3].tolist() == [1, 0, 1]
    labels[0, 0] = IGNORED
    assert count(labels, labels, ranges).segments[1, :3].tolist() == [1, 1, 0]


def test_relative_sizes_are_of_the_whole_map():
    ranges = segment_ranges('relative_area', {'half': (0.5, 1.0), 'whole': (1.0, 2.0)})
    labels = parse('11..')
    assert count(labels, labels, ranges).segments[1].tolist() == [1, 1, 0]
    labels = parse('1111')
    assert count(labels, labels, ranges).segments[1].tolist() == [1, 0, 1]


def test_diagonal_neighbours_are_of_one_segment():
    labels = parse('100', '010', '001')
    segments = find_segments(labels, 2)
    assert sorted(zip(segments.classes.tolist(), segments.areas.tolist(), strict=True)) == [
        (0, 6),
        (1, 3),
    ]


def test_ignored_pixels_part_a_segment_and_belong_to_none():
    labels = parse('11.11', '11.11')
    segments = find_segments(labels, 2)
    assert segments.areas.tolist() == [4, 4]
    assert (segments.numbers[:, 2] == 0).all()
    # Predicted as the class or as ignored, they count nowhere.
    for prediction in (np.ones_like(labels), labels):
        result = count(prediction, labels)
        assert result.pixels[1, 0] == result.correct[1, 0] == result.predicted[1] == 8
        assert (result.ignored, result.unpredicted) == (2, 0)


def test_half_of_the_pixels_is_enough_to_be_found():
    labels = parse('1111')
    assert [int(count(parse(x), labels).found[1, 0]) for x in ('1000', '1100', '0111')] == [
        0,
        1,
        1,
    ]


def test_pixels_predicted_as_no_class_are_wrong():
    result = count(parse('1.', '..'), parse('11', '1.'))
    assert (result.unpredicted, result.ignored) == (2, 1)
    assert score(result)['IoU'][1] == pytest.approx(1 / 3)


def test_a_map_without_any_segment_counts_nothing():
    labels = parse('...', '...')
    values = score(count(np.zeros_like(labels), labels))
    assert all(np.isnan(values[name]).all() for name in SCORES)


@pytest.mark.parametrize(
    ('prediction', 'labels', 'message'),
    [
        (
            parse('11'),
            parse('111', '111'),
            r'prediction has 1 x 2 pixels \(height x width\), its ground truth 2 x 3',
        ),
        (parse('15'), parse('11'), r'^predicted label 5 is neither a class \(0 to 3\) nor '),
        (parse('11'), parse('74'), r'^ground-truth label 7 .* ignored \(255\) \(2 such'),
        (np.array([[-1]]), np.array([[0]]), 'predicted label -1 is neither'),
        (np.array([[0]]), np.array([[-1]]), 'ground-truth label -1 is neither'),
    ],
    ids=['size', 'prediction', 'ground truth', 'negative prediction', 'negative ground truth'],
)
def test_maps_that_do_not_fit_are_named(prediction, labels, message):
    with pytest.raises(ValueError, match=message):
        count(prediction, labels)


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    relative=st.booleans(),
)
def test_equals_plain_python(seed, shape, relative):
    rng = np.random.default_rng(seed)
    ranges = RANGES
    if relative:
        ranges = segment_ranges('relative_side', {'few': (0.05, 0.3), 'many': (0.2, 0.9)})
    pairs = [random_maps(rng, shape=shape) for _ in range(3)]
    stacked = SegmentCounts.stack([count(*pair, ranges) for pair in pairs])
    values = scores(stacked.total())
    for name, expected in plain_scores(pairs, ranges, num_classes=4).items():
        np.testing.assert_allclose(values[name], expected, rtol=1e-12, err_msg=name)
    segments = sum(len(flood(labels, IGNORED)) for _, labels in pairs)
    assert stacked.segments[..., 0].sum() == segments


@given(seed=st.integers(0, 10**6), ignore_index=st.sampled_from([IGNORED, 0, 3]))
def test_equals_mmseg(seed, ignore_index):
    rng = np.random.default_rng(seed)
    num_classes = 6  # the last two of which are in no ground truth
    images, areas = [], []
    for _ in range(3):
        prediction, labels = random_maps(rng, shape=(6, 11))
        labels = np.where(labels == IGNORED, ignore_index, labels)
        prediction = np.where(rng.random(labels.shape) < 0.02, 4, prediction)
        images.append(count(prediction, labels, RANGES, num_classes, ignore_index))
        maps = (torch.from_numpy(x) for x in (prediction, labels))
        areas.append(IoUMetric.intersect_and_union(*maps, num_classes, ignore_index))
    areas = [sum(x).double() for x in zip(*areas, strict=True)]
    expected = IoUMetric.total_area_to_metrics(*areas)
    values = scores(SegmentCounts.stack(images).total())
    found = dict(IoU=values['IoU'], Acc=values['recall'][:, 0], aAcc=values['pixel_recall'][0])
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-9, err_msg=name)
    assert values['mIoU'] == pytest.approx(np.nanmean(expected['IoU']), abs=1e-9)
    assert values['class_recall'][0] == pytest.approx(np.nanmean(expected['Acc']), abs=1e-9)


def random_counts(seed, num_images=12, noise=0.3):
    rng = np.random.default_rng(seed)
    pairs = [random_maps(rng, shape=(8, 8)) for _ in range(num_images)]
    other = np.random.default_rng(seed + 1)
    return SegmentCounts.stack(
        [count(np.where(other.random((8, 8)) < noise, 0, p), g) for p, g in pairs]
    )


def test_counts_are_small_and_survive_pickling():
    labels = np.zeros((512, 512), np.uint8)
    counts = count(labels, labels, segment_ranges(), num_classes=150)
    data = pickle.dumps(counts)
    assert len(data) < 30_000
    again = pickle.loads(data)
    assert all(np.array_equal(x, getattr(again, name)) for name, x in vars(counts).items())


def test_sums_do_not_overflow():
    labels = np.zeros((2, 2), np.uint8)
    counts = count(labels, labels)
    counts.pixels[0, 0] = 2**31 - 1
    assert SegmentCounts.stack([counts] * 3).total().pixels[0, 0] == 3 * (2**31 - 1)


def test_weights_repeat_images():
    counts = random_counts(0, num_images=4)
    times = [2, 0, 1, 3]
    rows = np.repeat(np.arange(4), times)
    repeated = SegmentCounts(**{name: x[rows] for name, x in vars(counts).items()})
    weighted = counts.weighted(np.array(times)[:, None])
    for name, value in scores(repeated.total()).items():
        np.testing.assert_allclose(scores(weighted)[name][0], value, rtol=1e-12, err_msg=name)


def resampled(counts, num_resamples, seed):
    """The scores of each resample, one by one, with the draws of the bootstrap."""
    draws = []
    for times in draw_weights(len(counts.ignored), num_resamples, seed).T:
        rows = np.repeat(np.arange(len(times)), times)
        draws.append(scores(SegmentCounts(**{k: x[rows].sum(0) for k, x in vars(counts).items()})))
    return {name: np.stack([draw[name] for draw in draws]) for name in SCORES}


def percentiles(samples, estimate):
    ends = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    return np.moveaxis(ends - np.nanmean(samples, axis=0) + estimate, 0, -1)


@pytest.mark.filterwarnings('ignore:All-NaN', 'ignore:Mean of empty')
def test_intervals_are_percentiles_of_resamples_around_the_estimate():
    counts, reference = random_counts(3), random_counts(3, noise=0.5)
    num_resamples = 150  # more than are drawn at a time
    ours, theirs = (resampled(x, num_resamples, 7) for x in (counts, reference))
    bootstrap = Bootstrap(num_resamples, 7)
    found = score_intervals(counts, bootstrap)
    paired = score_intervals(counts, bootstrap, reference)
    for name in SCORES:
        own, other = (scores(x.total())[name] for x in (counts, reference))
        expected = percentiles(ours[name], own).clip(0, 1)
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
        difference = ours[name] - theirs[name]
        both = (percentiles(difference, x) for x in (own - other, np.nanmean(difference, axis=0)))
        expected = np.stack(list(both))
        expected = np.stack([expected[..., 0].min(0), expected[..., 1].max(0)], -1).clip(-1, 1)
        np.testing.assert_allclose(paired[name], expected, rtol=1e-9, atol=1e-12)
    other = score_intervals(counts, Bootstrap(num_resamples, 8))
    assert found['mIoU'].shape == (2,) and found['pixel_recall'].shape == (4, 2)
    assert (found['pixel_recall'][0] != other['pixel_recall'][0]).any()


def test_a_model_does_not_differ_from_itself():
    counts = random_counts(4)
    intervals = score_intervals(counts, Bootstrap(50), reference=counts)
    assert not intervals['mIoU'].any() and not intervals['pixel_recall'][0].any()


def test_intervals_need_five_images():
    labels = parse('11', '11')
    small = parse('1.', '..')
    counts = SegmentCounts.stack([count(x, x) for x in (*[labels] * 5, small)])
    intervals = score_intervals(counts, Bootstrap(20))
    for name in BY_SIZE:
        assert np.isnan(intervals[name]).all(axis=1).tolist() == [False, True, False, True]
    four = SegmentCounts.stack([count(labels, labels)] * 4)
    assert all(np.isnan(bounds).all() for bounds in score_intervals(four, Bootstrap(20)).values())


def test_other_ground_truth_cannot_be_compared():
    with pytest.raises(ValueError, match='another ground truth'):
        score_intervals(random_counts(0), Bootstrap(10), reference=random_counts(1))
