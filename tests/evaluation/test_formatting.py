"""Scores as text and in cells of CSV."""

from math import inf

from mmbiformer.evaluation.formatting import (
    interval_points,
    points,
    range_cells,
    score_cells,
    with_interval,
)
from mmbiformer.evaluation.report_data import Score
from mmbiformer.evaluation.sizes import SizeRange


def test_points():
    assert [points(x) for x in (0.19667, 0.0, 1.0, None)] == ['19.7', '0.0', '100.0', 'n/a']
    assert [points(x, signed=True) for x in (0.05, -0.05, -0.0001)] == ['+5.0', '-5.0', '+0.0']
    assert [points(x, decimals=2) for x in (0.19667, None)] == ['19.67', 'n/a']


def test_intervals():
    assert interval_points((0.1, 0.25)) == '[10.0, 25.0]'
    assert interval_points((-0.1, 0.25), signed=True, decimals=2) == '[-10.00, +25.00]'
    assert interval_points((None, None)) == 'n/a'


def test_with_interval():
    score = Score(0.5, (0.4, 0.6))
    assert with_interval(score) == '50.0 [40.0, 60.0]'
    assert with_interval(score, True, 2) == '+50.00 [+40.00, +60.00]'
    assert with_interval(Score(0.25)) == '25.0', 'no interval was asked for'
    assert with_interval(Score(None, (None, None))) == with_interval(Score(None)) == 'n/a'
    assert with_interval(Score(0.5, (None, None))) == '50.0 [n/a]'


def test_cells():
    ap = dict(AP=Score(0.5, (0.4, None)))
    assert score_cells(ap) == dict(AP=0.5, AP_low=0.4, AP_high=None)
    assert score_cells(ap, '_end') == dict(AP_end=0.5, AP_end_low=0.4, AP_end_high=None)
    assert score_cells(dict(x=Score(None))) == dict(x=None, x_low='', x_high='')
    expected = dict(range='8+', relative=True, area_low=64, area_high=inf)
    assert range_cells(SizeRange('8+', 64, inf, relative=True)) == expected
