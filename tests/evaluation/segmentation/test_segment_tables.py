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
    (model,) = without_bootstrap.models
    assert segment_notices(without_bootstrap) == model.notices


def with_interval(score, signed=False):
    if score.value is None:
        return 'n/a'
    shown = interval_percent(score.interval, signed)
    return f'{percent(score.value, signed)} {"[n/a]" if shown == "n/a" else shown}'


def test_text(report):
    text = segment_report_text(report)
    tables = tables_of(text)
    assert len(tables) == 5
    for table, model in zip(tables[:3], report.models, strict=True):
        assert f'{model.name}: maps/{model.name}, in percent\n' in text
        for cells, row in zip(table[1:], model.sizes, strict=True):
            counts = [f'{row.counts[key]:,}' for key in ('segments', 'images', 'pixels')]
            scores = [with_interval(row.scores[score]) for score in BY_SIZE]
            assert cells == [row.size.name, *counts, *scores]
        assert f'mIoU {with_interval(model.overall["mIoU"])}' in text
        assert all(notice in text for notice in model.notices)
    for table, difference in zip(tables[3:], report.differences, strict=True):
        assert f'{difference.model} minus plain, in points\n' in text
        for cells, row in zip(table[1:], difference.sizes, strict=True):
            scores = [with_interval(row.scores[score], True) for score in BY_SIZE]
            assert cells == [row.size.name, *scores]
        assert f'mIoU {with_interval(difference.overall["mIoU"], True)}' in text
    assert tables[0][-1][-3:] == tables[3][-1][-3:] == ['n/a'] * 3


def test_text_without_bootstrap(without_bootstrap):
    assert not re.search(r'[\d ]\[', segment_report_text(without_bootstrap))


def test_text_without_segments():
    text = segment_report_text(make_report_without_segments(Bootstrap(60)))
    assert text.count('mIoU n/a') == 3 and not re.search(r'\d\.\d', text)


def lines_of(report):
    return list(csv.DictReader(io.StringIO(segment_csv(report))))


def check_score(line, column, score):
    """A score of the report and its interval against the columns of a line."""
    bounds = score.interval or ('', '')
    for end, value in (('', score.value), ('_low', bounds[0]), ('_high', bounds[1])):
        expected = 'n/a' if value is None else str(value)
        assert line[column + end] == expected, (column, end)


def test_csv_of_totals(report):
    lines = [x for x in lines_of(report) if x['class'] == 'all']
    assert len(lines) == len(NAMES) * len(RANGES)
    differences = {x.model: x for x in report.differences}
    for i, line in enumerate(lines):
        model, a = report.models[i // len(RANGES)], i % len(RANGES)
        row, size = model.sizes[a], RANGES[a]
        assert (line['model'], line['range']) == (model.name, size.name)
        assert [line['relative'], line['area_low']] == ['False', str(size.low)]
        assert line['area_high'] == str(size.high)
        for key in ('segments', 'images', 'pixels'):
            assert line[key] == str(row.counts[key])
        parts = {'': model}
        if i >= len(RANGES):
            parts['_minus_first'] = differences[model.name]
        else:
            assert not any(value for key, value in line.items() if 'minus' in key)
        for end, part in parts.items():
            for name in BY_SIZE:
                check_score(line, f'{name}{end}', part.sizes[a].scores[name])
            if a:
                assert line[f'IoU{end}'] == line[f'IoU{end}_low'] == ''
            else:
                check_score(line, f'IoU{end}', part.overall['mIoU'])


def test_csv_of_classes(report):
    lines = iter(x for x in lines_of(report) if x['class'] != 'all')
    kinds = set()
    for model in report.models:
        for one in model.classes:
            for a, (row, size) in enumerate(zip(one.sizes, RANGES, strict=True)):
                line = next(lines)
                assert [line[x] for x in ('model', 'class', 'range')] == [
                    *(model.name, one.name, size.name)
                ]
                values = {name: score.value for name, score in row.scores.items()}
                expected = {**row.counts, **values, 'IoU': '' if a else one.scores['IoU'].value}
                assert len(expected) == 5
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
