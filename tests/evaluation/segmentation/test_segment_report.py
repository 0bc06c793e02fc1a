"""The report on segmenters: what it says of each, and of their differences."""

from dataclasses import replace

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

from mmbiformer.evaluation.report_data import Score
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_report import segment_report, summarise
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
    assert report.bootstrap == BOOTSTRAP
    assert report.ranges == list(RANGES)
    assert [model.name for model in report.models] == list(NAMES)
    for model, folder in zip(report.models, folders.values(), strict=True):
        intervals = score_intervals(folder.counts, BOOTSTRAP)
        expected = summarise(folder.counts, RANGES, CLASSES, intervals, folder.notices)
        assert model == replace(expected, name=model.name, path=f'maps/{model.name}')
    scores = [model.overall['mIoU'].value for model in report.models]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_every_further_model_is_compared_with_the_first(folders, report):
    first, *others = report.models
    assert len(report.differences) == 2
    for difference, model in zip(report.differences, others, strict=True):
        assert (difference.model, difference.minus) == (model.name, 'plain')
        miou = difference.overall['mIoU']
        assert miou.value == model.overall['mIoU'].value - first.overall['mIoU'].value > 0
        # Of the same resamples: not what two separate intervals give.
        counts = [folders[name].counts for name in (model.name, 'plain')]
        paired = score_intervals(counts[0], BOOTSTRAP, counts[1])
        assert miou.interval == tuple(paired['mIoU'])
        rows = zip(difference.sizes, model.sizes, first.sizes, strict=True)
        for a, (row, ours, theirs) in enumerate(rows):
            assert row.size == ours.size
            for score in BY_SIZE:
                if a == EMPTY:
                    assert row.scores[score].value is None
                else:
                    expected = ours.scores[score].value - theirs.scores[score].value
                    assert row.scores[score].value == expected
                expected = (None, None) if a >= ALONE else tuple(paired[score][a])
                assert row.scores[score].interval == expected


def test_a_range_that_one_image_has_is_known_without_interval(report):
    for model in report.models:
        row = model.sizes[ALONE]
        assert row.counts['images'] == row.counts['segments'] == 1
        assert row.scores['pixel_recall'].value > 0.3
        assert {score.interval for score in row.scores.values()} == {(None, None)}
        assert model.sizes[EMPTY].scores['pixel_recall'].value is None


def test_without_bootstrap(without_bootstrap):
    report = without_bootstrap
    assert report.bootstrap is None and report.differences == []
    (difference,) = make_segment_report().differences
    assert difference.overall['mIoU'].value > 0
    for part in (*report.models, difference):
        scores = [*part.overall.values(), *(x for row in part.sizes for x in row.scores.values())]
        assert all(score.interval is None for score in scores)


def test_without_segments(without_segments):
    for part in (*without_segments.models, *without_segments.differences):
        assert list(part.overall) == ['mIoU', 'mAcc', 'aAcc']
        scores = [*part.overall.values(), *(x for row in part.sizes for x in row.scores.values())]
        assert set(scores) == {Score(None, (None, None))}


def test_overall_scores(report):
    model, difference = report.models[1], report.differences[0]
    recalls = model.sizes[0].scores
    assert model.overall['mAcc'] == recalls['class_recall']
    assert model.overall['aAcc'] == recalls['pixel_recall']
    for name, score in difference.overall.items():
        values = [x.overall[name].value for x in (model, report.models[0])]
        assert score.value == pytest.approx(values[0] - values[1])
        low, high = score.interval
        assert low <= score.value <= high


def test_ranges_are_labelled_as_those_of_objects(report):
    assert [x.label for x in report.ranges] == [x.name for x in RANGES]
    ranges = segment_ranges('relative_area', {'few': (0, 0.01), 'rest': (0.01, float('inf'))})
    labels = [x.label for x in make_segment_report(('x',), ranges).ranges]
    assert labels == ['all', 'few (0-10% of side)', 'rest (10%+ of side)']
