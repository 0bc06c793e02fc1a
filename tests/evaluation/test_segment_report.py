"""The report on segmenters: what it says of each, of their differences, as text and as CSV."""

import csv
import io
import json
import re

import numpy as np
import pytest
from segment_reports import ALONE, CLASSES, EMPTY, RANGES, count_models, make_segment_report
from size_reports import HOSTILE

from mmbiformer.evaluation.resampling import CONFIDENCE, Bootstrap
from mmbiformer.evaluation.segment_report import (
    interval_percent,
    overall_scores,
    percent,
    ranges_of,
    segment_csv,
    segment_notices,
    segment_report,
    segment_report_text,
    summarise,
)
from mmbiformer.evaluation.segment_sizes import BY_SIZE, score_intervals, segment_ranges
from mmbiformer.evaluation.tables import range_label

NAMES = ('plain', 'better', 'best')
BOOTSTRAP = Bootstrap(60, seed=3)


@pytest.fixture(scope='module')
def folders():
    return count_models(NAMES)


@pytest.fixture(scope='module')
def report(folders):
    return segment_report(folders, RANGES, CLASSES, BOOTSTRAP)


@pytest.fixture(scope='module')
def without_bootstrap():
    return make_segment_report(('only',))


@pytest.fixture(scope='module')
def without_segments():
    """All of the ground truth is ignored."""
    folders = count_models()
    for folder in folders.values():
        for name, counts in vars(folder.counts).items():
            setattr(folder.counts, name, np.zeros_like(counts))
    return segment_report(folders, RANGES, CLASSES, BOOTSTRAP)


def test_every_model_is_summarised(folders, report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report['bootstrap'] == dict(num_resamples=60, seed=3, confidence=CONFIDENCE)
    assert [model['name'] for model in report['models']] == list(NAMES)
    for model, folder in zip(report['models'], folders.values(), strict=True):
        intervals = score_intervals(folder.counts, 60, 3)
        summary = summarise(folder.counts, RANGES, CLASSES, intervals, folder.notices)
        assert model == dict(name=model['name'], path=f'maps/{model["name"]}', **summary)
    scores = [model['totals']['mIoU'] for model in report['models']]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_every_further_model_is_compared_with_the_first(folders, report):
    first, *others = report['models']
    assert len(report['differences']) == 2
    for difference, model in zip(report['differences'], others, strict=True):
        assert (difference['model'], difference['minus']) == (model['name'], 'plain')
        assert difference['mIoU'] == model['totals']['mIoU'] - first['totals']['mIoU'] > 0
        # Of the same resamples: not what two separate intervals give.
        counts = [folders[name].counts for name in (model['name'], 'plain')]
        paired = score_intervals(counts[0], 60, 3, counts[1])
        assert difference['intervals'] == dict(mIoU=paired['mIoU'].tolist())
        rows = zip(difference['sizes'], model['sizes'], first['sizes'], strict=True)
        for a, (row, ours, theirs) in enumerate(rows):
            assert row['name'] == ours['name']
            for score in BY_SIZE:
                if a == EMPTY:
                    assert row[score] is None
                else:
                    assert row[score] == ours[score] - theirs[score]
                expected = [None, None] if a >= ALONE else paired[score][a].tolist()
                assert row['intervals'][score] == expected


def test_a_range_that_one_image_has_is_known_without_interval(report):
    for model in report['models']:
        row = model['sizes'][ALONE]
        assert (row['images'], row['segments']) == (1, 1) and row['pixel_recall'] > 0.3
        assert set(map(tuple, row['intervals'].values())) == {(None, None)}
        assert model['sizes'][EMPTY]['pixel_recall'] is None


def test_without_bootstrap(without_bootstrap):
    report = without_bootstrap
    assert report['bootstrap'] is None and report['differences'] == []
    (model,) = report['models']
    assert all(x['intervals'] == {} for x in (model['totals'], *model['sizes']))
    differences = make_segment_report()['differences'][0]
    assert differences['intervals'] == differences['sizes'][0]['intervals'] == {}
    assert differences['mIoU'] > 0


def test_without_segments(without_segments):
    for part in (*without_segments['models'], *without_segments['differences']):
        scores = overall_scores(part)
        assert [scores[name] for name in ('mIoU', 'mAcc', 'aAcc')] == [None] * 3
        assert set(map(tuple, scores['intervals'].values())) == {(None, None)}
        assert all(row[score] is None for row in part['sizes'] for score in BY_SIZE)
    text = segment_report_text(without_segments)
    assert text.count('mIoU n/a') == 3 and not re.search(r'\d\.\d', text)


def test_overall_scores(report, without_bootstrap):
    model, difference = report['models'][1], report['differences'][0]
    scores = overall_scores(model)
    totals, row = model['totals'], model['sizes'][0]
    assert {name: scores[name] for name in ('mIoU', 'mAcc', 'aAcc')} == {
        name: totals[name] for name in ('mIoU', 'mAcc', 'aAcc')
    }
    assert scores['intervals'] == dict(
        mIoU=totals['intervals']['mIoU'],
        mAcc=row['intervals']['class_recall'],
        aAcc=row['intervals']['pixel_recall'],
    )
    found, first = overall_scores(difference), overall_scores(report['models'][0])
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert found[name] == pytest.approx(scores[name] - first[name])
        low, high = found['intervals'][name]
        assert low <= found[name] <= high
    assert overall_scores(without_bootstrap['models'][0])['intervals'] == {}


def test_ranges_are_labelled_as_those_of_objects(report):
    assert [range_label(x) for x in ranges_of(report)] == [x.name for x in RANGES]
    ranges = segment_ranges('relative_area', {'few': (0, 0.01), 'rest': (0.01, float('inf'))})
    labels = [range_label(x) for x in ranges_of(make_segment_report(('x',), ranges))]
    assert labels == ['all', 'few (0-10% of side)', 'rest (10%+ of side)']


def test_notices_of_all_models_come_once(report, without_bootstrap):
    notices = segment_notices(report)
    own = [x for x in notices if x.startswith(NAMES)]
    assert own == [f'{name}: left out of {name}' for name in NAMES]
    shared = notices[: -len(own)]
    assert shared[0] == 'left out of the ground truth' and 'ignored' in shared[1]
    assert len(set(notices)) == len(notices)
    (model,) = without_bootstrap['models']
    assert segment_notices(without_bootstrap) == model['notices']


def test_percent():
    assert [percent(x) for x in (0.19667, 0.0, 1.0, None)] == ['19.67', '0.00', '100.00', 'n/a']
    assert [percent(x, signed=True) for x in (0.05, -0.05, -1e-9)] == ['+5.00', '-5.00', '+0.00']
    assert interval_percent((0.1, 0.25)) == '[10.00, 25.00]'
    assert interval_percent((-0.1, 0.25), signed=True) == '[-10.00, +25.00]'
    assert interval_percent((None, None)) == 'n/a'


def tables_of(text):
    """Lines of cells, one list per table."""
    tables = re.findall(r'(?m)(?:^[|+].*\n?)+', text)
    rows = [[x for x in table.splitlines() if x.startswith('|')] for table in tables]
    return [[[y.strip() for y in x.split('|')[1:-1]] for x in table] for table in rows]


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
