"""Scores, their differences, and what is known of them."""

from math import nan

from mmbiformer.evaluation.report_data import Score


def test_what_is_nan_does_not_exist():
    assert Score.of(0.5) == Score(0.5)
    assert Score.of(nan, [nan, 0.5]) == Score(None, (None, 0.5))


def test_difference():
    assert Score(0.75, (0, 1)).minus(Score(0.5, (0, 1)), [0.25, 0.5]) == Score(0.25, (0.25, 0.5))
    assert Score(0.75).minus(Score(0.5)) == Score(0.25)
    assert Score(None).minus(Score(None), [nan, nan]) == Score(None, (None, None))


def test_zero_is_excluded_where_all_of_the_interval_is_on_one_side():
    assert all(Score(0, x).excludes_zero for x in ((0.1, 0.2), (-0.2, -0.1)))
    others = (None, (-0.1, 0.1), (0, 0.1), (-0.1, 0), (None, None))
    assert not any(Score(0, x).excludes_zero for x in others)
