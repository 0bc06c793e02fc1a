"""Error types and their cost, on constructed cases and against the authors' tidecv."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_samples import random_coco, with_masks

from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.detection.matches import match
from mmbiformer.evaluation.detection.tide import FALSE_TYPES, SUMMARIES, TYPES, analyse_errors
from mmbiformer.evaluation.sizes import size_ranges

A, B = 1, 2
RANGES = size_ranges('side', dict(below=(0, 50), above=(50, 1000)))
BELOW, ABOVE = 4, 5


def run(objects, found, ranges=RANGES, crowds=()):
    """Objects (category, box) and detections (category, box, score) on one image."""
    annotations = [
        dict(
            id=i,
            image_id=1,
            category_id=category,
            bbox=box,
            area=box[2] * box[3],
            iscrowd=int(i - 1 in crowds),
        )
        for i, (category, box) in enumerate(objects, 1)
    ]
    content = dict(
        images=[dict(id=1, height=400, width=400)],
        categories=[dict(id=A, name='a'), dict(id=B, name='b')],
        annotations=annotations,
    )
    results = [dict(image_id=1, category_id=c, bbox=b, score=s) for c, b, s in found]
    return analyse(content, results, ranges)


def analyse(content, results, ranges=RANGES, iou_type='bbox'):
    ground_truth = ground_truth_of(content, 'gt')
    detections = detections_of(results, 'dt', ground_truth)
    evaluation = evaluate(ground_truth, detections, ranges, iou_type)
    return analyse_errors(evaluation, match(evaluation, [0.5]))


def counts(errors, size=0):
    return {name: int(x[size]) for name, x in errors.counts.items() if x[size]}


def costs(errors, size=0):
    cost = {name: float(errors.cost[name][size]) for name in TYPES}
    return {name: round(x, 9) for name, x in cost.items() if abs(x) > 1e-9}


OBJECT = [100, 100, 60, 60]
HALF = [100, 100, 60, 20]  # IoU 1/3 with the object
FAR = [300, 300, 60, 60]


def test_all_found():
    errors = run([(A, OBJECT)], [(A, OBJECT, 0.9)])
    assert counts(errors) == costs(errors) == {}
    assert errors.ap50[0] == pytest.approx(1)
    assert errors.kind.tolist() == [-1]


@pytest.mark.parametrize(
    ('found', 'kind', 'gain'),
    [
        # Mended, it is the object's true positive: AP50 from 0 to 1.
        ((A, HALF, 0.9), 'localisation', 1),
        ((B, OBJECT, 0.9), 'classification', 1),
        # These can only go: the object stays without a match.
        ((A, FAR, 0.9), 'background', 0),
        ((B, HALF, 0.9), 'both', 0),
    ],
)
def test_one_error(found, kind, gain):
    errors = run([(A, OBJECT)], [found])
    missed = {} if gain else {'missed': 1}
    assert counts(errors) == {kind: 1, **missed}
    assert errors.ap50[0] == 0
    assert costs(errors) == ({kind: 1} if gain else {})
    assert FALSE_TYPES[errors.kind[0]] == kind


def test_a_false_detection_before_the_true_one_costs_half():
    for kind, false in (
        ('duplicate', (A, [100, 100, 60, 55], 0.8)),
        ('background', (A, FAR, 0.9)),
        ('localisation', (A, HALF, 0.9)),
    ):
        found = (A, OBJECT, 0.85) if kind != 'duplicate' else (A, OBJECT, 0.9)
        # A duplicate comes after its match; a second object then shows its cost.
        objects = [(A, OBJECT), (A, FAR)] if kind == 'duplicate' else [(A, OBJECT)]
        found = [found, false] + ([(A, FAR, 0.7)] if kind == 'duplicate' else [])
        errors = run(objects, found)
        assert counts(errors) == {kind: 1}
        before = (51 + 50 * 2 / 3) / 101 if kind == 'duplicate' else 1 / 2
        assert errors.ap50[0] == pytest.approx(before)
        assert costs(errors) == {kind: pytest.approx(1 - before)}


def test_missed_objects_are_no_longer_asked_for():
    errors = run([(A, OBJECT), (A, FAR)], [(A, OBJECT, 0.9)])
    assert counts(errors) == {'missed': 1}
    assert errors.ap50[0] == pytest.approx(51 / 101)
    assert costs(errors) == {'missed': pytest.approx(50 / 101)}
    assert errors.missed.tolist() == [False, True]
    assert errors.cost['false negatives'][0] == pytest.approx(50 / 101)
    assert errors.cost['false positives'][0] == pytest.approx(0)


def test_an_object_with_a_mendable_detection_is_not_missed():
    errors = run([(A, OBJECT)], [(B, OBJECT, 0.9)])
    assert not errors.missed.any()


def test_only_the_best_detection_of_an_object_is_mended():
    """The better one matches; the other goes, or mending would make it a duplicate."""
    errors = run([(A, OBJECT)], [(A, HALF, 0.9), (A, [100, 100, 20, 60], 0.8)])
    assert counts(errors) == {'localisation': 2}
    assert costs(errors) == {'localisation': 1}
    # The best of all types: here the classification error, so localisation's only goes.
    errors = run([(A, OBJECT)], [(A, HALF, 0.8), (B, OBJECT, 0.9)])
    assert counts(errors) == {'localisation': 1, 'classification': 1}
    assert costs(errors) == {'classification': 1}


def test_a_mended_detection_of_a_matched_object_goes():
    errors = run([(A, OBJECT)], [(A, HALF, 0.9), (A, OBJECT, 0.8)])
    assert counts(errors) == {'localisation': 1}
    assert costs(errors) == {'localisation': pytest.approx(0.5)}


def test_localisation_comes_before_classification():
    near = [100, 100, 60, 62]
    errors = run([(A, OBJECT), (B, near)], [(A, HALF, 0.9), (B, near, 0.9)])
    assert counts(errors) == {'localisation': 1}


def test_detections_on_crowds_are_no_errors():
    errors = run([(A, OBJECT), (A, FAR)], [(A, FAR, 0.9), (A, OBJECT, 0.8)], crowds=(1,))
    assert counts(errors) == {}
    assert errors.ap50[0] == pytest.approx(1)


def test_each_range_has_its_own_errors_and_cost():
    """A small object, missed; a large one, badly placed by a detection of half its size."""
    small, large = [10, 10, 20, 20], [100, 100, 80, 80]
    part = [100, 100, 80, 35]
    errors = run([(A, small), (A, large)], [(A, part, 0.9), (A, [300, 10, 20, 20], 0.8)])
    assert counts(errors) == {'localisation': 1, 'background': 1, 'missed': 1}
    assert counts(errors, BELOW) == {'background': 1, 'missed': 1}
    assert counts(errors, ABOVE) == {'localisation': 1}
    assert errors.ap50[[0, BELOW, ABOVE]].tolist() == [0, 0, 0]
    assert costs(errors, ABOVE) == {'localisation': 1}
    assert costs(errors, BELOW) == {}


def test_the_object_decides_on_the_range_of_a_mended_detection():
    """The detection is small, the object is not: mended, it counts where the object does."""
    errors = run([(A, [100, 100, 60, 60])], [(A, [100, 100, 35, 35], 0.9)])
    assert counts(errors, BELOW) == {'localisation': 1}
    assert counts(errors, ABOVE) == {}
    assert costs(errors, ABOVE) == {'localisation': 1}
    assert np.isnan(errors.ap50[BELOW])
    assert np.isnan(errors.cost['localisation'][BELOW])


def test_masks_are_classified_by_their_own_iou():
    """The boxes agree, the masks do not."""
    sample = random_coco(np.random.default_rng(1), 6, crowds=0)
    content, results = with_masks(*sample)
    own, boxes = analyse(content, results, iou_type='segm'), analyse(*sample)
    assert (own.kind >= 0).any()
    assert sum(own.counts['localisation']) != sum(boxes.counts['localisation'])


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_tidecv_says_the_same(seed):
    """tidecv 1.0.1, its recalls set to COCO's np.linspace; it shows no cost below zero."""
    stored = json.loads((Path(__file__).parents[2] / 'data/tidecv.json').read_text())[str(seed)]
    errors = analyse(stored['ground_truth'], stored['detections'])
    assert errors.ap50[0] == pytest.approx(stored['ap50'], abs=1e-9)
    for name in (*TYPES, *SUMMARIES):
        cost = errors.cost[name][0]
        if name in TYPES:
            assert errors.counts[name][0] == stored['counts'][name]
            cost = max(cost, 0)
        assert cost == pytest.approx(stored['costs'][name], abs=1e-9), name
