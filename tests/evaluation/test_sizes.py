"""Size ranges: bounds, names, and what is no range."""

from math import inf

import numpy as np
import pytest

from mmbiformer.evaluation.sizes import COCO_RANGES, size_ranges


def test_octaves_of_the_side_by_default():
    ranges = size_ranges()
    assert [x.name for x in ranges] == [
        *('0-8', '8-16', '16-32', '32-64', '64-128', '128-256', '256-512', '512+')
    ]
    assert [(x.low, x.high) for x in ranges[1:3]] == [(64, 256), (256, 1024)]
    assert ranges[-1].high == inf


@pytest.mark.parametrize('measure', ['side', 'area', 'relative_side', 'relative_area'])
def test_octaves_cover_all_sizes_once(measure):
    ranges = size_ranges(measure)
    assert {x.relative for x in ranges} == {measure.startswith('relative')}
    bounds = np.array([x.low for x in ranges])
    sizes = np.concatenate([bounds, np.nextafter(bounds[1:], 0), bounds * 1.5, [1e12]])
    assert (sum(x.holds(sizes).astype(int) for x in ranges) == 1).all()
    assert len({x.name for x in ranges}) == len(ranges)


def test_octaves_by_area_are_those_by_side():
    by_side, by_area = size_ranges('side'), size_ranges('area')
    assert [(x.low, x.high) for x in by_side] == [(x.low, x.high) for x in by_area]
    assert by_area[1].name == '64-256'
    by_side, by_area = size_ranges('relative_side'), size_ranges('relative_area')
    np.testing.assert_allclose([x.low for x in by_side], [x.low for x in by_area], rtol=1e-12)
    assert by_side[1].name == '1-2%'
    assert by_area[1].name == '0.01-0.04%'


def test_half_open_but_for_coco():
    (tiny,) = size_ranges('side', dict(tiny=(2, 20)))
    assert tiny.holds(np.array([3.99, 4, 399, 400])).tolist() == [False, True, True, False]
    at_bound = np.array([1024.0])
    assert [bool(x.holds(at_bound)[0]) for x in COCO_RANGES] == [True, True, True, False]


def test_relative_bounds_are_those_that_are_written():
    """A square of 40 pixels is 0.4 of the side of an image of 100, though 0.4**2 > 0.16."""
    for side in range(1, 100):
        (x,) = size_ranges('relative_side', dict(x=(side / 100, 1)))
        assert x.holds(np.array([side**2 / 100**2]))[0], side


def test_closed_bounds_hold_the_same_sizes():
    for x in (*size_ranges()[:-1], *COCO_RANGES):
        low, high = x.closed
        sizes = np.array([low, high, np.nextafter(high, inf), np.nextafter(low, -inf)])
        assert x.holds(sizes).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('width',), "measure 'width' is unknown: choose from side, area"),
        (('side', {}), 'no size ranges given'),
        (('side', dict(small=(0, 8))), "size range 'small' has the name of one of COCO's own"),
        (('side', dict(x=(8, 8))), r"size range 'x' is \(8, 8\): give \(low, high\)"),
        (('side', dict(x=(-1, 8))), "size range 'x'"),
        (('side', dict(x=(8,))), "size range 'x'"),
        (('side', dict(x=('a', 8))), "size range 'x'"),
        (('side', dict(x=(0, float('nan')))), "size range 'x'"),
        (('side', dict(x=8)), "size range 'x' is 8"),
    ],
)
def test_wrong_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        size_ranges(*arguments)
