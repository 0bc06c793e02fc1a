"""The report as data: every number in it against where it comes from."""

import json

import numpy as np
import pytest
from coco_samples import random_coco, with_masks
from intervals import interval

from mmbiformer.evaluation.detection.bootstrap import weighted_ap
from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.detection.matches import match
from mmbiformer.evaluation.detection.size_report import size_report
from mmbiformer.evaluation.detection.tide import TYPES, analyse_errors
from mmbiformer.evaluation.report.report_json import report_json
from mmbiformer.evaluation.resampling import Bootstrap, draw_weights, mean_of_known
from mmbiformer.evaluation.sizes import COCO_RANGES, size_ranges

RANGES = size_ranges()


@pytest.fixture(scope='module')
def sample():
    content, results = random_coco(np.random.default_rng(0), 20, detections_per_image=12)
    ground_truth = ground_truth_of(content, 'gt')
    rng = np.random.default_rng(1)
    better = [x for x in results if rng.random() < 0.6 or x['score'] > 0.5]
    models = {
        name: detections_of(records, f'{name}.json', ground_truth)
        for name, records in (('plain', results), ('better', better))
    }
    return ground_truth, models


@pytest.fixture(scope='module')
def report(sample):
    return size_report(*sample, RANGES, bootstrap=Bootstrap(300, 7))


def images_of(ground_truth, evaluation, category, size):
    held = evaluation.object_in_range[size] & (ground_truth.category == category)
    return len(set(ground_truth.image[held]))


def test_what_was_judged(sample, report):
    assert report.ground_truth.num_images == 20
    assert report.ground_truth.num_objects == (~sample[0].crowd).sum()
    assert report.bootstrap == Bootstrap(300, 7)
    assert report.ranges == [*COCO_RANGES, *RANGES]
    assert [x.is_coco for x in report.ranges] == [True] * 4 + [False] * 8
    assert report.ranges[-1].sides == (512, None)


def test_sizes(sample, report):
    ground_truth, models = sample
    for model, detections in zip(report.models, models.values(), strict=True):
        evaluation = evaluate(ground_truth, detections, RANGES)
        matches = match(evaluation)
        errors = analyse_errors(evaluation, matches)
        weights = draw_weights(20, 300, 7)
        resampled = mean_of_known(weighted_ap(evaluation, matches, weights), axis=2)
        once = np.ones((20, 1), np.int32)
        estimate = mean_of_known(weighted_ap(evaluation, matches, once), axis=2)[..., 0]
        low, high = interval(resampled, estimate)
        assert model.counts['num_detections'] == len(detections.scores)
        for a, row in enumerate(model.sizes):
            assert row.counts['num_objects'] == evaluation.num_objects[:, a].sum()
            if not row.counts['num_objects']:
                assert row.scores['AP'].value is row.scores['AR'].value is None
                assert row.errors['missed'].cost is None
                assert row.scores['AP'].interval == (None, None)
                continue
            assert row.scores['AP'].value == evaluation.average_precision(a)
            assert row.scores['AP50'].value == evaluation.average_precision(a, 0.5)
            assert row.scores['AP75'].value == evaluation.average_precision(a, 0.75)
            assert row.scores['AR'].value == evaluation.average_recall(a)
            images = set(ground_truth.image[evaluation.object_in_range[a]])
            ends = (low[2, a], high[2, a]) if len(images) >= 5 else (None, None)
            assert row.scores['AP75'].interval == ends
            for kind in TYPES:
                assert row.errors[kind].cost == errors.cost[kind][a]
                assert row.errors[kind].count == errors.counts[kind][a]
        for k, row in enumerate(model.classes):
            for a, cell in enumerate(row.sizes):
                assert cell.counts['num_objects'] == evaluation.num_objects[k, a]
                assert (cell.scores['AP'].value is None) == (cell.counts['num_objects'] == 0)
                if cell.scores['AP'].value is not None:
                    assert cell.scores['AP'].value == evaluation.average_precision(a, category=k)
                    low_k, high_k = cell.scores['AP'].interval
                    assert (low_k is None) == (images_of(ground_truth, evaluation, k, a) < 5)
                    assert low_k is None or low_k <= high_k
        assert model.overall['APs'].value == evaluation.average_precision(1)
        assert model.overall['AR@10'].value == evaluation.average_recall(max_detections=10)


def test_paired_difference(sample, report):
    """On the same resamples: narrower than if the two were drawn apart."""
    ground_truth, models = sample
    (difference,) = report.differences
    assert (difference.model, difference.minus) == ('better', 'plain')
    weights = draw_weights(20, 300, 7)
    drawn = []
    for detections in models.values():
        evaluation = evaluate(ground_truth, detections, RANGES)
        drawn.append(mean_of_known(weighted_ap(evaluation, match(evaluation), weights), axis=2)[0])
    for a, cell in enumerate(difference.sizes):
        first, second = (model.sizes[a].scores['AP'].value for model in report.models)
        if first is None:
            assert cell.scores['AP'].value is None
            continue
        assert cell.scores['AP'].value == second - first
        if report.models[0].sizes[a].scores['AP'].interval[0] is None:
            assert cell.scores['AP'].interval == (None, None)
            continue
        values = drawn[1][a] - drawn[0][a]
        plain = np.nanquantile(values, [0.025, 0.975])
        moved = plain - np.nanmean(values) + cell.scores['AP'].value
        bounds = min(plain[0], moved[0]), max(plain[1], moved[1])
        np.testing.assert_allclose(cell.scores['AP'].interval, bounds, atol=1e-12)
    own = [np.ptp(x.sizes[0].scores['AP'].interval) for x in report.models]
    assert np.ptp(difference.sizes[0].scores['AP'].interval) < max(own)


def test_a_model_does_not_differ_from_itself(sample):
    ground_truth, models = sample
    twice = dict(a=models['plain'], b=models['plain'])
    report = size_report(ground_truth, twice, RANGES, bootstrap=Bootstrap(50, 0))
    for cell in report.differences[0].sizes:
        assert cell.scores['AP'].value in (0, None)
        assert cell.scores['AP'].interval in ((0, 0), (None, None))


def test_no_interval_from_few_images():
    box = dict(category_id=1, bbox=[0, 0, 9, 9])
    content = dict(
        images=[dict(id=i, height=99, width=99) for i in range(5)],
        categories=[dict(id=1, name='x')],
        annotations=[
            *(dict(id=i + 1, image_id=i, area=81, **box) for i in range(5)),
            *(
                dict(id=i + 6, image_id=i, area=900, category_id=1, bbox=[20, 20, 30, 30])
                for i in range(4)
            ),
        ],
    )
    ground_truth = ground_truth_of(content, 'gt')
    found = detections_of([dict(image_id=0, score=0.5, **box)], 'dt', ground_truth)
    report = size_report(ground_truth, dict(a=found, b=found), RANGES, bootstrap=Bootstrap(50, 0))
    for row in (report.models[0].sizes, report.differences[0].sizes):
        by_name = {x.size.name: x.scores['AP'].interval for x in row}
        assert None not in by_name['8-16']
        assert by_name['16-32'] == (None, None)


def test_without_bootstrap(sample):
    report = size_report(*sample, RANGES)
    assert report.bootstrap is None
    (model, _), (difference,) = report.models, report.differences
    for part in (*model.classes, model, difference):
        assert all(x.interval is None for row in part.sizes for x in row.scores.values())


def test_masks_and_relative_sizes():
    content, results = with_masks(*random_coco(np.random.default_rng(2), 6))
    ground_truth = ground_truth_of(content, 'gt')
    models = dict(only=detections_of(results, 'dt', ground_truth))
    ranges = size_ranges('relative_side')
    report = size_report(ground_truth, models, ranges, 'segm', Bootstrap(20, 0))
    assert report.iou_type == 'segm'
    assert report.differences == []
    assert [x.relative for x in report.ranges] == [False] * 4 + [True] * 7
    assert json.dumps(report_json(report), allow_nan=False)


def test_says_what_does_not_count():
    box = dict(category_id=1, bbox=[0, 0, 9, 9])
    content = dict(
        images=[dict(id=i, height=9, width=9) for i in range(3)],
        categories=[dict(id=1, name='x')],
        annotations=[dict(id=1, image_id=0, area=81, **box)],
    )
    ground_truth = ground_truth_of(content, 'gt')
    results = [dict(image_id=0, score=0.5, **box)] * 130
    models = dict(only=detections_of(results, 'dt', ground_truth))
    assert size_report(ground_truth, models, RANGES).models[0].notices == [
        '30 of 130 detections are beyond the best 100 of an image and category, and do not count',
        '2 of 3 images have no detections',
    ]
