"""Weights of images, and intervals of what is scored under them."""

import numpy as np
from intervals import interval

from mmbiformer.evaluation.resampling import (
    Bootstrap,
    draw_weights,
    intervals,
    mean_of_known,
    weigh_images,
)


def test_weights_are_those_of_the_seed():
    weights = draw_weights(50, 400, 3)
    assert weights.shape == (50, 400)
    assert (weights.sum(axis=0) == 50).all()
    np.testing.assert_array_equal(weights, draw_weights(50, 400, 3))
    assert (weights != draw_weights(50, 400, 4)).any()
    assert abs((weights == 0).mean() - (1 - 1 / 50) ** 50) < 0.01


def test_mean_of_known():
    values = np.array([[1.0, np.nan, 2.0], [np.nan] * 3, [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(mean_of_known(values, axis=1), [1.5, np.nan, 0])
    np.testing.assert_array_equal(mean_of_known(values, axis=0), [0.5, 0, 1])
    assert np.isnan(mean_of_known(values[1], axis=0))


def test_interval():
    values = np.arange(1001.0) / 1000
    rows = np.stack([values, np.full(1001, np.nan), np.full(1001, 0.7)])
    low, high = interval(rows, np.array([0.5, 0.5, 0.7]))
    np.testing.assert_allclose(low, [0.025, np.nan, 0.7])
    np.testing.assert_allclose(high, [0.975, np.nan, 0.7])
    half = np.where(values < 0.5, np.nan, values)
    np.testing.assert_allclose(interval(half, np.array(0.75)), (0.5125, 0.9875), atol=1e-3)


def test_interval_is_around_the_estimate_and_within_its_limits():
    values = np.arange(1001.0) / 1000
    np.testing.assert_allclose(interval(values, np.array(0.4)), (0, 0.875))
    np.testing.assert_allclose(interval(values, np.array(0.9)), (0.425, 1))


def test_the_interval_of_a_difference_holds_the_percentiles_too():
    values = np.arange(1001.0) / 1000 - 0.5
    np.testing.assert_allclose(interval(values, np.array(0.1), True), (-0.475, 0.575))
    # One object more, found in one image: no resample without that image differs.
    drawn = np.repeat([0, 0.01, 0.02, 0.03], [368, 368, 184, 80])
    low, high = interval(drawn, np.array(0.01), True)
    assert low <= 0 < high


def test_all_images_come_once_before_the_resamples():
    weights = weigh_images(6, Bootstrap(40, seed=3))
    assert weights.shape == (6, 41) and weights.dtype == np.int32
    assert (weights[:, 0] == 1).all()
    np.testing.assert_array_equal(weights[:, 1:], draw_weights(6, 40, 3))


def test_few_images_have_no_interval():
    values = np.random.default_rng(0).random((2, 3, 101))
    found = intervals(values, np.array([4, 5, 6]))
    low, high = interval(values[..., 1:], values[..., 0])
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:, 0], low[:, 1:])
    np.testing.assert_array_equal(found[:, 1:, 1], high[:, 1:])
    low, high = interval(values[0, 1, 1:], values[0, 1, 0], is_difference=True)
    assert intervals(values[0, 1], np.array(5), is_difference=True).tolist() == [low, high]
