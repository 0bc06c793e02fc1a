"""Scores as text."""

from mmbiformer.evaluation.formatting import (
    excludes_zero,
    interval_points,
    points,
    with_interval,
)


def test_points():
    assert [points(x) for x in (0.19667, 0.0, 1.0, None)] == ['19.7', '0.0', '100.0', 'n/a']
    assert [points(x, signed=True) for x in (0.05, -0.05, -0.0001)] == ['+5.0', '-5.0', '+0.0']
    assert [points(x, decimals=2) for x in (0.19667, None)] == ['19.67', 'n/a']


def test_intervals():
    assert interval_points((0.1, 0.25)) == '[10.0, 25.0]'
    assert interval_points((-0.1, 0.25), signed=True, decimals=2) == '[-10.00, +25.00]'
    assert interval_points((None, None)) == 'n/a'
    assert excludes_zero((0.1, 0.2)) and excludes_zero((-0.2, -0.1))
    assert not any(excludes_zero(x) for x in ((-0.1, 0.1), (0, 0.1), (None, None)))


def test_with_interval():
    row = dict(AP=0.5, AR=0.25, none=None, intervals=dict(AP=[0.4, 0.6], none=[None, None]))
    assert with_interval(row, 'AP') == '50.0 [40.0, 60.0]'
    assert with_interval(row, 'AP', True, 2) == '+50.00 [+40.00, +60.00]'
    assert with_interval(row, 'AR') == '25.0', 'no interval was asked for'
    assert with_interval(row, 'none') == 'n/a'
    assert with_interval(dict(AP=0.5, intervals=dict(AP=[None, None])), 'AP') == '50.0 [n/a]'
    assert with_interval(dict(AP=0.5), 'AP') == '50.0'
