"""Several seeds' reports put together."""

import csv
import io
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from size_reports import make_report
from text_tables import tables_of

from mmbiformer.evaluation.detection.compare_seeds import (
    SeedsComparison,
    Spread,
    compare_seeds,
    seeds_csv,
    seeds_text,
)
from mmbiformer.evaluation.report_data import Difference, SizeRow
from mmbiformer.evaluation.sizes import SizeRange


@pytest.fixture(scope='module')
def reports():
    return {seed: make_report(seed=seed) for seed in (0, 3, 4)}


def test_means_and_intervals_over_seeds(reports):
    comparison = compare_seeds(reports)
    first = reports[0]
    assert comparison.seeds == [0, 3, 4]
    names = [(row.model, row.minus) for row in comparison.rows]
    own, other = (x.name for x in first.models)
    assert names == [(own, ''), (other, ''), (other, own)]
    for a in range(len(first.ranges)):
        by_model = [
            [x.models[i].sizes[a].scores['AP'].value for x in reports.values()] for i in range(2)
        ]
        *models, difference = (row.sizes[a].scores['AP'] for row in comparison.rows)
        assert [x.values for x in models] == by_model
        if None in by_model[0]:
            assert difference == Spread(None, (None, None), values=[None] * 3, deviation=None)
            continue
        for mean, values in zip(models, by_model, strict=True):
            assert mean.value == pytest.approx(np.mean(values), abs=1e-12)
            assert mean.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        # Of the mean of paired differences, by scipy's own test.
        test = stats.ttest_rel(by_model[1], by_model[0])
        assert difference.interval == pytest.approx(tuple(test.confidence_interval()), abs=1e-12)
    assert comparison.num_objects[0] == first.models[0].sizes[0].counts['num_objects']


def test_one_seed_has_no_spread(reports):
    comparison = compare_seeds({0: reports[0]})
    mean = comparison.rows[0].sizes[0].scores['AP']
    assert mean.value == reports[0].models[0].sizes[0].scores['AP'].value
    assert mean.deviation is None and mean.interval == (None, None)
    assert '± n/a' in seeds_text(comparison)


def test_table():
    reach = 12.7062047 * 0.01
    size = SizeRange('8-16', 64, 256)

    def row(model, minus, mean, interval, deviation=None):
        spread = Spread(mean, interval, values=[0.5, 0.6], deviation=deviation)
        return Difference(model, minus, [SizeRow(size, dict(AP=spread))])

    rows = [
        row('a', '', 0.55, (0, 1), deviation=0.1 / sqrt(2)),
        row('b', 'a', 0.05, (0.05 - reach, 0.05 + reach), deviation=0.02 / sqrt(2)),
        row('c', 'a', 0.05, (0.01, 0.09), deviation=0.02 / sqrt(2)),
        row('d', 'a', None, (None, None)),
    ]
    text = seeds_text(SeedsComparison(seeds=[0, 7], num_objects=[1200], rows=rows))
    ((head, line),) = tables_of(text)
    assert head == ['range', 'objects', 'a', 'b minus a', 'c minus a', 'd minus a']
    assert line == [
        '8-16',
        '1,200',
        '55.0 ± 7.1',
        '+5.0 [-7.7, +17.7]',
        '+5.0 [+1.0, +9.0] *',
        'n/a',
    ]
    assert text.startswith('AP over seeds 0, 7\n')

    # Of many models, one below the other.
    many = [row(f'model {i}', '', 0.01 * i, (0, 1), deviation=0.1) for i in range(8)]
    text = seeds_text(SeedsComparison(seeds=[0, 7], num_objects=[1200], rows=many))
    ((head, *lines),) = tables_of(text)
    assert head == ['range', '8-16']
    assert lines[0] == ['objects', '1,200']
    assert lines[1:] == [[f'model {i}', f'{i}.0 ± 10.0'] for i in range(8)]


def test_csv(reports):
    comparison = compare_seeds(reports)
    lines = list(csv.DictReader(io.StringIO(seeds_csv(comparison))))
    num_ranges = len(comparison.num_objects)
    assert len(lines) == 3 * num_ranges
    line, mean = lines[-num_ranges], comparison.rows[-1].sizes[0].scores['AP']
    assert [line[f'AP_seed{x}'] for x in (0, 3, 4)] == [str(x) for x in mean.values]
    assert [line['low'], line['high']] == [str(x) for x in mean.interval]
    assert lines[-1]['area_high'] == 'inf' and lines[0]['minus'] == ''
    empty = [x for x in lines if x['num_objects'] == '0']
    assert empty and all(x['mean'] == x['AP_seed0'] == 'n/a' for x in empty)
