"""Which images are the worst, and what is drawn on them."""

import pytest

from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.detection.matches import match
from mmbiformer.evaluation.detection.tide import analyse_errors
from mmbiformer.evaluation.detection.worst_images import best_threshold, worst_images
from mmbiformer.evaluation.report_data import ShownDetection, ShownObject
from mmbiformer.evaluation.sizes import size_ranges

SMALL, LARGE, FAR = [5, 5, 10, 10], [50, 50, 90, 90], [200, 200, 10, 10]
RANGES = size_ranges('side', dict(below=(0, 50), above=(50, 1000), none=(2000, 3000)))


def run(objects, found):
    """Objects (image, box) and detections (image, box, score) of one category."""
    content = dict(
        images=[dict(id=i, height=300, width=300) for i in range(4)],
        categories=[dict(id=1, name='thing')],
        annotations=[
            dict(id=i, image_id=image, category_id=1, bbox=box, area=box[2] * box[3])
            for i, (image, box) in enumerate(objects, 1)
        ],
    )
    ground_truth = ground_truth_of(content, 'gt')
    results = [dict(image_id=i, category_id=1, bbox=b, score=s) for i, b, s in found]
    evaluation = evaluate(ground_truth, detections_of(results, 'dt', ground_truth), RANGES)
    matches = match(evaluation, [0.5])
    return evaluation, matches, analyse_errors(evaluation, matches)


def test_threshold_is_where_f1_is_best():
    objects = [(i, SMALL) for i in range(3)]
    found = [(0, SMALL, 0.9), (1, SMALL, 0.6), (2, FAR, 0.5), (2, SMALL, 0.2)]
    evaluation, matches, _ = run(objects, found)
    threshold, f1 = best_threshold(evaluation, matches)
    # F1 of 0.5, 0.8, 2/3 and 6/7 as the threshold falls.
    assert threshold == 0.2
    assert f1 == pytest.approx(6 / 7)


def test_equal_scores_are_above_a_threshold_together():
    found = [(0, SMALL, 0.5), *[(i, FAR, 0.5) for i in (0, 1, 2, 3)]]
    evaluation, matches, _ = run([(0, SMALL)], found)
    assert best_threshold(evaluation, matches) == (0.5, pytest.approx(2 / 6))


def test_most_errors_first_and_only_those_of_the_range():
    objects = [(0, SMALL), (1, SMALL), (1, LARGE), (2, LARGE), (3, SMALL)]
    found = [(0, FAR, 0.9), (0, SMALL, 0.4), (1, LARGE, 0.9), (3, SMALL, 0.9), (3, FAR, 0.1)]
    evaluation, matches, errors = run(objects, found)
    everything, *_, below, above, none = worst_images(evaluation, matches, errors, 0.5)
    summary = [(x.id, x.missed, x.false) for x in everything]
    assert summary == [(0, 1, 1), (1, 1, 0), (2, 1, 0)]
    assert [(x.id, x.missed, x.false) for x in below] == [(0, 1, 1), (1, 1, 0)]
    assert [(x.id, x.missed, x.false) for x in above] == [(2, 1, 0)]
    assert none == []
    assert below[0].objects == [ShownObject(SMALL, 'thing', found=False)]
    assert below[0].detections == [ShownDetection(FAR, 'thing', score=0.9, type='background')]
    assert below[1].objects == [ShownObject(SMALL, 'thing', found=False)]
    assert (below[1].height, below[1].width, below[1].file_name) == (300, 300, None)
    assert [(x.box, x.found) for x in everything[1].objects] == [(SMALL, False), (LARGE, True)]


def test_no_more_than_asked_for():
    evaluation, matches, errors = run([(i, SMALL) for i in range(4)], [(0, FAR, 0.9)])
    found = worst_images(evaluation, matches, errors, 0, num_images=2)[0]
    assert [x.id for x in found] == [0, 1]
