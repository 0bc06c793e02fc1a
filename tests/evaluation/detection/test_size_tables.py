"""Tables and CSV against the report they are made of."""

import csv
import io
import re
from dataclasses import replace

import pytest
from size_reports import make_report
from text_tables import tables_of

from mmbiformer.evaluation.detection.bootstrap import KINDS
from mmbiformer.evaluation.detection.size_tables import report_csv, report_text
from mmbiformer.evaluation.detection.tide import SUMMARIES, TYPES
from mmbiformer.evaluation.formatting import interval_points, points
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges


@pytest.fixture(scope='module')
def report():
    report = make_report(bootstrap=Bootstrap(60))
    sure = [x.scores['AP'].excludes_zero for x in report.differences[0].sizes]
    assert not any(x.counts['num_objects'] for x in report.models[0].sizes[-2:])
    assert True in sure and False in sure
    return report


@pytest.mark.parametrize(
    ('measure', 'ranges', 'labels'),
    [
        ('side', None, ['0-8', '8-16', '512+']),
        (
            'side',
            {'tiny': (0, 16), 'rest': (16, float('inf'))},
            ['tiny (0-16 px)', 'rest (16+ px)'],
        ),
        ('area', {'64-300': (64, 300)}, ['64-300 (8-17.3 px)']),
        ('relative_side', None, ['0-1%', '1-2%', '32%+']),
        ('relative_area', {'few': (0, 0.01)}, ['few (0-10% of side)']),
    ],
)
def test_labels_say_the_sides(measure, ranges, labels):
    report = make_report(('x',), size_ranges(measure, ranges))
    found = [x.label for x in report.ranges]
    assert found[:4] == ['all', 'small (0-32 px)', 'medium (32-96 px)', 'large (96+ px)']
    assert [*found[4:6], found[-1]][: len(labels)] == labels


def test_table_of_a_model(report):
    text = report_text(report)
    tables = tables_of(text)
    assert len(tables) == 3
    for table, model in zip(tables, report.models, strict=False):
        assert f'{model.name} ({model.path})' in text
        for name, score in model.overall.items():
            assert re.search(rf'\b{name} {points(score.value)}', text)
        assert len(table) == 13
        for cells, size, row in zip(table[1:], report.ranges, model.sizes, strict=True):
            costs = [points(row.errors[kind].cost) for kind in TYPES]
            ap = points(row.scores['AP'].value)
            if row.scores['AP'].value is not None:
                ap += ' ' + (interval_points(row.scores['AP'].interval).replace('n/a', '[n/a]'))
            others = [points(row.scores[name].value) for name in ('AP50', 'AP75', 'AR')]
            assert cells == [size.label, str(row.counts['num_objects']), ap, *others, *costs]
    empty = tables[0][-1]
    assert empty == ['512+', '0', *['n/a'] * 10]


def test_table_of_differences(report):
    text = report_text(report)
    assert 'better minus plain' in text and '* excludes 0' in text
    table = tables_of(text)[2]
    for cells, row in zip(table[1:], report.differences[0].sizes, strict=True):
        for cell, kind in zip(cells[2:], KINDS, strict=True):
            assert cell.split(' ')[0] == points(row.scores[kind].value, signed=True)
            assert cell.endswith('*') == row.scores[kind].excludes_zero
    assert table[-1][2:] == ['n/a'] * 3


def test_one_model_without_bootstrap():
    report = make_report(('x',))
    text = report_text(report)
    assert len(tables_of(text)) == 1
    assert '[' not in text and 'resamples' not in text
    rows = list(csv.DictReader(io.StringIO(report_csv(report))))
    assert {(x['AP_low'], x['AP_minus_first']) for x in rows} == {('', '')}


def test_an_interval_that_does_not_exist_is_no_interval_of_zeros():
    report = make_report(('x',), bootstrap=Bootstrap(5), num_images=1)
    assert report.models[0].sizes[0].scores['AP'].interval == (None, None)
    ap = points(report.models[0].sizes[0].scores['AP'].value)
    assert tables_of(report_text(report))[0][1][2] == f'{ap} [n/a]'


def test_notices(report):
    first, second = report.models
    report = replace(
        report,
        ground_truth=replace(report.ground_truth, notices=['4 crowds']),
        models=[first, replace(second, notices=['8 too many'])],
    )
    assert report_text(report).endswith('notice: 4 crowds\nnotice: better: 8 too many')


def test_csv(report):
    rows = list(csv.DictReader(io.StringIO(report_csv(report))))
    assert len(rows) == 2 * (1 + 3) * 12
    found = {(x['model'], x['category'], x['range']): x for x in rows}
    assert len(found) == len(rows)

    def check(row, key, value):
        assert row[key] == 'n/a' if value is None else float(row[key]) == value

    differences = [None, report.differences[0]]
    for model, difference in zip(report.models, differences, strict=True):
        for a, size in enumerate(report.ranges):
            row, values = found[model.name, 'all', size.name], model.sizes[a]
            check(row, 'num_objects', values.counts['num_objects'])
            for key in ('AP', 'AP50', 'AP75', 'AR'):
                check(row, key, values.scores[key].value)
            for kind in KINDS:
                for end, bound in zip(('low', 'high'), values.scores[kind].interval, strict=True):
                    check(row, f'{kind}_{end}', bound)
                if difference:
                    check(row, f'{kind}_minus_first', difference.sizes[a].scores[kind].value)
                    bounds = difference.sizes[a].scores[kind].interval
                    check(row, f'{kind}_minus_first_high', bounds[1])
                else:
                    assert row[f'{kind}_minus_first'] == ''
            for kind in (*TYPES, *SUMMARIES):
                check(row, f'cost_{kind.replace(" ", "_")}', values.errors[kind].cost)
            for kind in TYPES:
                check(row, f'count_{kind}', values.errors[kind].count)
            assert float(row['area_low']) == size.low
            assert float(row['area_high']) == size.high
            for category in model.classes:
                row, cell = (
                    found[model.name, category.name, size.name],
                    category.sizes[a],
                )
                check(row, 'num_objects', cell.counts['num_objects'])
                check(row, 'AP', cell.scores['AP'].value)
                check(row, 'AP_low', cell.scores['AP'].interval[0])
                assert row['AP50'] == row['cost_both'] == ''
    assert found['plain', 'all', '512+']['AP'] == 'n/a'
