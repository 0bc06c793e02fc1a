"""Lists of boxes, labels and scores: what does not fit is named by file and record."""

import pytest
from other_formats import (
    as_box_lists,
    coco_content,
    coco_results,
    random_sample,
    write_json,
)

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.coco_files import check_masks, ground_truth_of
from mmbiformer.evaluation.detection.formats.reading import read_detections

NAN = float('nan')


@pytest.fixture
def content():
    return coco_content(random_sample(0))


@pytest.fixture
def lists(content):
    return as_box_lists(coco_results(random_sample(0)), content)


@pytest.fixture
def read(tmp_path, content):
    def read(lists, **options):
        path = write_json(tmp_path / 'dt.json', lists)
        return read_detections(path, ground_truth_of(content, 'gt'), **options)

    return read


def test_images_and_classes(read, lists, content):
    found = read(lists)
    assert found.image.tolist() == [i for i, x in enumerate(lists) for _ in x['boxes']]
    assert (found.category + 1).tolist() == [label for x in lists for label in x['labels']]
    files = [
        dict(x, file_name=y['file_name']) for x, y in zip(lists, content['images'], strict=True)
    ]
    for shorten in (str, lambda x: f'elsewhere/{x}', lambda x: x[:-4], lambda x: f'{x[:-4]}.png'):
        renamed = [dict(x, file_name=shorten(x['file_name'])) for x in files]
        if shorten('x.jpg').startswith('else'):
            with pytest.raises(UserError, match=r"record 0 of .* has file_name 'elsewhere/0"):
                read(renamed)
        else:
            assert (read(renamed).image == found.image).all()
    named = [
        dict(x, image_id=y['file_name']) for x, y in zip(lists, content['images'], strict=True)
    ]
    assert (read(named).image == found.image).all()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(boxes=[[1, 2, 3]] * 3), 'record 1 of .* has the box .1, 2, 3., not four finite'),
        (dict(boxes=[[1, 2, NAN, 9]] * 3), 'record 1 of .* has the box .1, 2, nan, 9., not four'),
        (dict(boxes=[7] * 3), 'record 1 of .* has the box 7, not four'),
        (
            dict(boxes=[[50, 9, 10, 20]] * 3),
            'record 1 .* of negative width or height: it takes x1',
        ),
        (dict(boxes='x'), 'record 1 of .* has something other than lists of boxes, labels, sc'),
        (dict(labels=[1]), 'record 1 of .* has 3 boxes, 1 labels, 3 scores: give as many'),
        (dict(labels=[1, 2, None]), 'box 2 of record 1 of .* has the class None, not a whole'),
        (dict(labels=[1, 2, 1.0]), 'box 2 of record 1 of .* has the class 1.0, not a whole'),
        (dict(labels=[1, 2, True]), 'box 2 of record 1 of .* has the class True, not a whole'),
        (
            dict(labels=[1, 2, 9]),
            "box 2 of record 1 of .* has the class 9, which is not in 'gt' .1",
        ),
        (dict(scores=[1, NAN, 1]), 'box 1 of record 1 of .* has score nan, not a finite'),
        (dict(scores=['1'] * 3), "box 0 of record 1 of .* has score '1', not a finite"),
        (dict(masks=[[[0]]] * 3), 'record 1 of .* has masks that are no run-length encodings'),
        (dict(masks=[{}] * 3), 'box 0 of record 1 .* has bbox and segmentation, while record 0'),
        (None, 'record 1 of .* has not all of boxes, labels and scores'),
        (dict(boxes=None), 'record 1 of .* has something other than lists'),
    ],
)
def test_wrong_records(read, lists, change, message):
    lists[1] = dict(boxes=[[1, 2, 30, 40]] * 3, labels=[1, 2, 3], scores=[0.5] * 3)
    lists[1] = None if change is None else lists[1] | change
    with pytest.raises(UserError, match=message):
        read(lists)


def test_wrong_masks(read, content):
    results = coco_results(random_sample(0, polygons=True))
    lists = as_box_lists(results, content)
    lists[1]['masks'][2]['size'] = [1, 1]
    with pytest.raises(
        UserError, match=r"box 2 of record 1 of '.*dt.json' .image_id 102. has a mask"
    ):
        check_masks(read(lists), ground_truth_of(content, 'gt'))


def test_fractions_are_no_pixels(read, lists):
    small = [dict(x, boxes=[[v / 1e4 for v in box] for box in x['boxes']]) for x in lists]
    with pytest.raises(UserError, match=r'lie between 0 and 1, which are no pixels: scale them'):
        read(small)


def test_images_in_doubt(read, lists, content):
    with pytest.raises(UserError, match=r'the 7 records of .* not clearly the 8 images'):
        read(lists[:-1])
    with pytest.raises(UserError, match=r'record 3 of .* has no image_id'):
        read([dict(x, image_id=101 + i) for i, x in enumerate(lists[:3])] + lists[3:])
    twice = [dict(x, image_id=101) for x in lists]
    with pytest.raises(
        UserError, match=r'record 0 of .* and record 1 of .* are of the same image'
    ):
        read(twice)
    both = [
        dict(x, image_id=y['id'], file_name=y['file_name'])
        for x, y in zip(lists, content['images'], strict=True)
    ]
    assert len(read(both).scores)
    both[0]['image_id'], both[1]['image_id'] = 102, 101
    with pytest.raises(UserError, match=r'image_id and file_name of .* mean different images'):
        read(both)
    unknown = [dict(x, image_id=x_id) for x, x_id in zip(lists, range(8), strict=True)]
    with pytest.raises(
        UserError, match=r"record 0 .* has image_id 0, which is not in 'gt' .\d of 8"
    ):
        read(unknown)
    with pytest.raises(UserError, match=r"record 0 of .* has image_id 'x', which is not in 'gt'"):
        read({'x': lists[0]})
    content['images'].reverse()
    with pytest.raises(UserError, match=r'the 8 records of .* not clearly the 8 images'):
        read(lists)


def test_ways_to_count_in_doubt(read, lists):
    for x in lists:
        x['labels'] = [min(max(label, 1), 2) for label in x['labels']]
    with pytest.raises(
        UserError, match=r"fit the categories of 'gt' as ids or from-0.*--class-num"
    ):
        read(lists)
    assert set(read(lists, class_numbers='from-0').category) == {1, 2}
    assert set(read(lists, class_numbers='ids').category) == {0, 1}


def test_nothing_found(read, lists):
    empty = [dict(boxes=[], labels=[], scores=[]) for _ in lists]
    with pytest.raises(UserError, match=r'has no detections: is it the result of a finished test'):
        read(empty)
    assert len(read(empty, may_be_empty=True).scores) == 0


def test_two_formats_at_once(read, lists):
    lists[0]['bbox'] = [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"dt.json' may be of two formats: keep one of"):
        read(lists)
