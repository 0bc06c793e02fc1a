"""Tables and CSV of the report on segmenters against the report."""

import csv
import io
import re

import pytest
from segment_reports import (
    CLASSES,
    RANGES,
    interval_percent,
    make_report_without_segments,
    make_segment_report,
    percent,
)
from size_reports import HOSTILE
from text_tables import tables_of

from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_report import overall_scores
from mmbiformer.evaluation.segmentation.segment_sizes import BY_SIZE
from mmbiformer.evaluation.segmentation.segment_tables import (
    segment_csv,
    segment_notices,
    segment_report_text,
)

NAMES = ('plain', 'better', 'best')


@pytest.fixture(scope='module')
def report():
    return make_segment_report(NAMES, bootstrap=Bootstrap(60, seed=3))


@pytest.fixture(scope='module')
def without_bootstrap():
    return make_segment_report(('only',))


def test_notices_of_all_models_come_once(report, without_bootstrap):
    notices = segment_notices(report)
    own = [x for x in notices if x.startswith(NAMES)]
    assert own == [f'{name}: left out of {name}' for name in NAMES]
    shared = notices[: -len(own)]
    assert shared[0] == 'left out of the ground truth' and 'ignored' in shared[1]
    assert len(set(notices)) == len(notices)
    (model,) = without_bootstrap['models']
    assert segment_notices(without_bootstrap) == model['notices']


def with_interval(row, score, signed=False):
    if row[score] is None:
        return 'n/a'
    shown = interval_percent(row['intervals'][score], signed)
    return f'{percent(row[score], signed)} {"[n/a]" if shown == "n/a" else shown}'


def test_text(report):
    text = segment_report_text(report)
    tables = tables_of(text)
    assert len(tables) == 5
    for table, model in zip(tables[:3], report['models'], strict=True):
        assert f'{model["name"]}: maps/{model["name"]}, in percent\n' in text
        for cells, row in zip(table[1:], model['sizes'], strict=True):
            counts = [f'{row[key]:,}' for key in ('segments', 'images', 'pixels')]
            scores = [with_interval(row, score) for score in BY_SIZE]
            assert cells == [row['name'], *counts, *scores]
        assert f'mIoU {with_interval(model["totals"], "mIoU")}' in text
        assert all(notice in text for notice in model['notices'])
    for table, difference in zip(tables[3:], report['differences'], strict=True):
        assert f'{difference["model"]} minus plain, in points\n' in text
        for cells, row in zip(table[1:], difference['sizes'], strict=True):
            assert cells == [row['name'], *(with_interval(row, x, True) for x in BY_SIZE)]
        assert f'mIoU {with_interval(difference, "mIoU", True)}' in text
    assert tables[0][-1][-3:] == tables[3][-1][-3:] == ['n/a'] * 3


def test_text_without_bootstrap(without_bootstrap):
    assert not re.search(r'[\d ]\[', segment_report_text(without_bootstrap))


def test_text_without_segments():
    text = segment_report_text(make_report_without_segments(Bootstrap(60)))
    assert text.count('mIoU n/a') == 3 and not re.search(r'\d\.\d', text)


def lines_of(report):
    return list(csv.DictReader(io.StringIO(segment_csv(report))))


def check_scores(line, source, columns):
    """A line against a row with intervals; columns map those of the line to scores."""
    for column, score in columns.items():
        bounds = source['intervals'].get(score, ('', ''))
        for end, value in (('', source[score]), ('_low', bounds[0]), ('_high', bounds[1])):
            expected = 'n/a' if value is None else str(value)
            assert line[column + end] == expected, (column, end)


def test_csv_of_totals(report):
    lines = [x for x in lines_of(report) if x['class'] == 'all']
    assert len(lines) == len(NAMES) * len(RANGES)
    differences = {x['model']: x for x in report['differences']}
    for i, line in enumerate(lines):
        model, a = report['models'][i // len(RANGES)], i % len(RANGES)
        row, size = model['sizes'][a], RANGES[a]
        assert (line['model'], line['range']) == (model['name'], size.name)
        assert [line['relative'], line['area_low']] == ['False', str(size.low)]
        assert line['area_high'] == str(size.high)
        for key in ('segments', 'images', 'pixels'):
            assert line[key] == str(row[key])
        check_scores(line, row, {x: x for x in BY_SIZE})
        parts = {'': model}
        if i >= len(RANGES):
            parts['_minus_first'] = differences[model['name']]
        else:
            assert not any(value for key, value in line.items() if 'minus' in key)
        for end, part in parts.items():
            check_scores(line, part['sizes'][a], {f'{x}{end}': x for x in BY_SIZE})
            if a:
                assert line[f'IoU{end}'] == line[f'IoU{end}_low'] == ''
            else:
                check_scores(line, overall_scores(part), {f'IoU{end}': 'mIoU'})


def test_csv_of_classes(report):
    lines = iter(x for x in lines_of(report) if x['class'] != 'all')
    kinds = set()
    for model in report['models']:
        for row in model['classes']:
            for a, (cell, size) in enumerate(zip(row['sizes'], RANGES, strict=True)):
                line = next(lines)
                assert [line[x] for x in ('model', 'class', 'range')] == [
                    *(model['name'], row['name'], size.name)
                ]
                expected = {**cell, 'IoU': '' if a else row['IoU']}
                for key, value in expected.items():
                    assert line[key] == ('n/a' if value is None else str(value))
                assert line['class_recall'] == line['images'] == line['pixel_recall_low'] == ''
                kinds.add((line['IoU'], line['pixel_recall']))
    assert next(lines, None) is None
    assert ('0.0', 'n/a') in kinds, 'a class that is predicted alone'
    assert ('n/a', 'n/a') in kinds, 'a class that is nowhere'


def test_csv_without_bootstrap_and_with_a_name_of_many_signs():
    lines = lines_of(make_segment_report(hostile=True))
    assert lines[len(RANGES)]['class'] == HOSTILE
    assert not any(
        x[key]
        for x in lines
        for key in x
        if key.endswith(('_low', '_high'))
        if not key.startswith('area')
    )
    assert lines[-len(RANGES) * (len(CLASSES) + 1)]['IoU_minus_first'] not in ('', 'n/a')
