"""The report on segmenters: what it says of each, and of their differences."""

import json

import pytest
from segment_reports import (
    ALONE,
    CLASSES,
    EMPTY,
    RANGES,
    count_models,
    make_report_without_segments,
    make_segment_report,
)

from mmbiformer.evaluation.detection.size_tables import range_label
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_report import (
    overall_scores,
    ranges_of,
    segment_report,
    summarise,
)
from mmbiformer.evaluation.segmentation.segment_sizes import (
    BY_SIZE,
    score_intervals,
    segment_ranges,
)

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
    return make_report_without_segments(BOOTSTRAP)


def test_every_model_is_summarised(folders, report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report['bootstrap'] == BOOTSTRAP.as_dict()
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
