"""Several seeds' reports put together."""

import csv
import io
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from size_reports import make_report
from text_tables import tables_of

from mmbiformer.evaluation.detection.compare_seeds import compare_seeds, seeds_csv, seeds_text


@pytest.fixture(scope='module')
def reports():
    return {seed: make_report(seed=seed) for seed in (0, 3, 4)}


def test_means_and_intervals_over_seeds(reports):
    comparison = compare_seeds(reports)
    first = reports[0]
    assert comparison['seeds'] == [0, 3, 4]
    names = [(row['model'], row['minus']) for row in comparison['rows']]
    own, other = (x['name'] for x in first['models'])
    assert names == [(own, None), (other, None), (other, own)]
    for a in range(len(first['ranges'])):
        sides = [[x['models'][i]['sizes'][a]['AP'] for x in reports.values()] for i in range(2)]
        *models, difference = (row['sizes'][a] for row in comparison['rows'])
        assert [x['values'] for x in models] == sides
        if None in sides[0]:
            assert difference == dict.fromkeys(['mean', 'deviation']) | dict(
                values=[None] * 3, interval=[None, None]
            )
            continue
        for row, values in zip(models, sides, strict=True):
            assert row['mean'] == pytest.approx(np.mean(values), abs=1e-12)
            assert row['deviation'] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        # Of the mean of paired differences, by scipy's own test.
        test = stats.ttest_rel(sides[1], sides[0])
        assert difference['interval'] == pytest.approx(list(test.confidence_interval()), abs=1e-12)
    assert comparison['ranges'][0]['num_objects'] == first['models'][0]['sizes'][0]['num_objects']


def test_one_seed_has_no_spread(reports):
    comparison = compare_seeds({0: reports[0]})
    cell = comparison['rows'][0]['sizes'][0]
    assert cell['mean'] == reports[0]['models'][0]['sizes'][0]['AP']
    assert cell['deviation'] is None and cell['interval'] == [None, None]
    assert '± n/a' in seeds_text(comparison)


def test_table():
    low, high = 0.05 - 12.7062047 * 0.01, 0.05 + 12.7062047 * 0.01
    sizes = [dict(values=[0.5, 0.6], mean=0.55, deviation=0.1 / sqrt(2), interval=[0, 1])]
    gains = [dict(values=[0.04, 0.06], mean=0.05, deviation=0.02 / sqrt(2), interval=[low, high])]
    sure = [dict(gains[0], interval=[0.01, 0.09])]
    none = [dict(values=[None, None], mean=None, deviation=None, interval=[None, None])]
    text = seeds_text(
        dict(
            seeds=[0, 7],
            ranges=[
                dict(
                    name='8-16', low=64, high=256, relative=False, is_coco=False, num_objects=1200
                )
            ],
            rows=[
                dict(model='a', minus=None, sizes=sizes),
                dict(model='b', minus='a', sizes=gains),
                dict(model='c', minus='a', sizes=sure),
                dict(model='d', minus='a', sizes=none),
            ],
        )
    )
    ((head, row),) = tables_of(text)
    assert head == ['range', 'objects', 'a', 'b minus a', 'c minus a', 'd minus a']
    assert row == [
        '8-16',
        '1,200',
        '55.0 ± 7.1',
        '+5.0 [-7.7, +17.7]',
        '+5.0 [+1.0, +9.0] *',
        'n/a',
    ]
    assert text.startswith('AP over seeds 0, 7\n')


def test_csv(reports):
    comparison = compare_seeds(reports)
    lines = list(csv.DictReader(io.StringIO(seeds_csv(comparison))))
    assert len(lines) == 3 * len(comparison['ranges'])
    line, cell = lines[-len(comparison['ranges'])], comparison['rows'][-1]['sizes'][0]
    assert [line[f'AP_seed{x}'] for x in (0, 3, 4)] == [str(x) for x in cell['values']]
    assert [line['low'], line['high']] == [str(x) for x in cell['interval']]
    assert lines[-1]['area_high'] == 'inf' and lines[0]['minus'] == ''
    empty = [x for x in lines if x['num_objects'] == '0']
    assert empty and all(x['mean'] == x['AP_seed0'] == 'n/a' for x in empty)
