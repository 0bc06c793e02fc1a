"""Reading COCO's files: what is wrong is named by file and record."""

import json

import numpy as np
import pytest
from coco_samples import random_coco, with_masks
from pycocotools import mask as mask_api

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.coco_eval import evaluate
from mmbiformer.evaluation.detection.coco_files import (
    check_masks,
    detections_of,
    ground_truth_of,
)
from mmbiformer.evaluation.detection.formats.reading import read_detections, read_ground_truth

NAN = float('nan')


@pytest.fixture
def sample():
    return random_coco(np.random.default_rng(0), crowds=0)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_reads_what_the_files_say(tmp_path, sample):
    content, results = sample
    ground_truth = read_ground_truth(write(tmp_path / 'gt.json', content))
    detections = read_detections(write(tmp_path / 'dt.json', results), ground_truth)
    assert ground_truth.image_ids == sorted(x['id'] for x in content['images'])
    assert ground_truth.category_names == ['kind 0', 'kind 1', 'kind 2']
    for i, record in enumerate(content['annotations']):
        assert ground_truth.image_ids[ground_truth.image[i]] == record['image_id']
        assert ground_truth.category_ids[ground_truth.category[i]] == record['category_id']
        assert ground_truth.boxes[i].tolist() == record['bbox']
        assert ground_truth.areas[i] == record['area']
    for i, record in enumerate(results):
        assert ground_truth.image_ids[detections.image[i]] == record['image_id']
        assert detections.scores[i] == record['score']
    assert detections.segmentations is None
    assert not ground_truth.notices


def test_masks(sample):
    content, results = with_masks(*sample)
    ground_truth = ground_truth_of(content, 'gt')
    assert len(ground_truth.segmentations) == len(content['annotations'])
    detections = detections_of(results, 'dt', ground_truth)
    assert detections.boxes is None
    assert detections.segmentations[0] == results[0]['segmentation']


def test_chosen_categories(sample):
    content, _ = sample
    ground_truth = ground_truth_of(
        content, 'gt', [content['categories'][i]['name'] for i in (1, 2)]
    )
    assert ground_truth.category_ids == [4, 7]
    left = [x for x in content['annotations'] if x['category_id'] != 1]
    assert len(ground_truth.areas) == len(left) < len(content['annotations'])
    dropped = len(content['annotations']) - len(left)
    assert ground_truth.notices == [f'{dropped} annotations of other categories are left out']


def test_says_what_does_not_count(sample):
    content, _ = sample
    annotations = content['annotations']
    annotations[0]['iscrowd'] = 1
    annotations[1]['bbox'][2] = 0
    annotations[2]['id'] = 0
    annotations[3]['ignore'] = 1
    notices = ground_truth_of(content, 'gt').notices
    assert [x.split(',')[0] for x in notices] == [
        '1 crowd regions are no objects to be found; detections on them count neither way',
        '1 objects have a box without area',
        '1 objects have the flag ignore',
        'an annotation has the id 0',
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'not found: check the path'),
        ('', r'gt.json. \(0 bytes\) is not valid JSON, perhaps truncated'),
        ('{"images": [{"id": 1}', 'is not valid JSON, perhaps truncated'),
        ('<html>404</html>', 'is not valid JSON'),
        ('[]', 'is not a COCO annotation file, it has no list of images: are it'),
        ('{"images": [], "annotations": []}', 'has no list of categories'),
        ('{"images": [], "annotations": [], "categories": []}', 'has no images'),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', 'has no categories'),
        (
            '{"images": [{}], "annotations": [], "categories": []}',
            'record 0 of images of .* no id',
        ),
        (
            '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": []}',
            'images of .*gt.json. have the id 1 twice',
        ),
    ],
)
def test_files_that_are_no_ground_truth(tmp_path, text, message):
    path = tmp_path / 'gt.json'
    if text is not None:
        write(path, text)
    with pytest.raises(UserError, match=message):
        read_ground_truth(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(image_id=99),
            r"record 1 of 'gt' \(id 2, image_id 99\) has image_id 99, which is not",
        ),
        (dict(category_id=99), "record 1 of 'gt' .* has category_id 99, which is not among its"),
        (dict(area=NAN), "record 1 of 'gt' .* has area nan"),
        (dict(area=None), "record 1 of 'gt' .* has area None: COCO's evaluation needs it"),
        (dict(area=-1), "record 1 of 'gt' .* has area -1"),
        (dict(bbox=[1, 2, NAN, 4]), "record 1 of 'gt' .* has bbox .1, 2, nan, 4., not four"),
        (dict(bbox=[1, 2, 3]), "record 1 of 'gt' .* has bbox"),
        (dict(bbox=None), "record 1 of 'gt' .* has bbox None"),
        (dict(id=1), "annotations of 'gt' have the id 1 twice"),
        (dict(id='x'), "record 1 of annotations of 'gt' has the id 'x': use whole numbers"),
        (dict(id=2.0), "record 1 of annotations of 'gt' has the id 2.0: use whole"),
        (dict(category_id=[1]), "record 1 of 'gt' .* has category_id .1., which is not among"),
        (dict(iscrowd='0'), "record 1 of 'gt' .* has iscrowd '0', neither 0 nor 1"),
        (dict(bbox=[1, 2, -3, 4]), "record 1 of 'gt' .* of negative width or height"),
    ],
)
def test_wrong_annotations(sample, change, message):
    sample[0]['annotations'][1].update(change)
    with pytest.raises(UserError, match=message):
        ground_truth_of(sample[0], 'gt')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(image_id=99), "record 1 of 'dt' .* image_id 99, which is not in 'gt' .1 of .* data"),
        (dict(image_id=[2]), "record 1 of 'dt'"),
        (dict(category_id=2), "record 1 of 'dt' .* category_id 2, which is not in 'gt'"),
        (dict(score=NAN), "record 1 of 'dt' .* has score nan, not a finite number"),
        (dict(score=None), "record 1 of 'dt' .* has score None"),
        (dict(score='0.5'), "record 1 of 'dt' .* has score '0.5'"),
        (dict(score=True), "record 1 of 'dt' .* has score True"),
        (dict(score=10**400), "record 1 of 'dt' .* has score 1000"),
        (dict(bbox=[1, 2, 3, -4]), "record 1 of 'dt' .* of negative width or height"),
        (dict(bbox=[1, 2, 3, float('inf')]), "record 1 of 'dt' .* has bbox"),
    ],
)
def test_wrong_detections(sample, change, message):
    ground_truth = ground_truth_of(sample[0], 'gt')
    sample[1][1].update(change)
    with pytest.raises(UserError, match=message):
        detections_of(sample[1], 'dt', ground_truth)


def test_records_that_lack_something(sample):
    content, results = sample
    ground_truth = ground_truth_of(content, 'gt')
    for key in ('image_id', 'category_id', 'score', 'bbox'):
        broken = [{k: v for k, v in results[0].items() if k != key}]
        if key == 'bbox':
            broken = [results[0], *broken]
        with pytest.raises(UserError, match=f"record {len(broken) - 1} of 'dt'.* {key}"):
            detections_of(broken, 'dt', ground_truth)
    with pytest.raises(UserError, match="record 0 of 'dt' has neither bbox nor segmentation"):
        detections_of([dict(image_id=2, category_id=1, score=1)], 'dt', ground_truth)
    _, masked = with_masks(content, results)
    mixed = "record 1 of 'dt' .* has segmentation, while record 0 has bbox and segmentation"
    with pytest.raises(UserError, match=mixed):
        detections_of([{**results[0], **masked[0]}, *masked[1:]], 'dt', ground_truth)


def test_results_of_another_data_set(sample):
    content, results = sample
    other = {**content, 'images': [dict(x, id=x['id'] + 10**6) for x in content['images']]}
    other['annotations'] = []
    message = r"image_id .* which is not in 'other' \(all of them\): is it of another data set\?"
    with pytest.raises(UserError, match=message):
        detections_of(results, 'dt', ground_truth_of(other, 'other'))


def test_results_that_are_none(tmp_path, sample):
    ground_truth = ground_truth_of(sample[0], 'gt')
    for content, message in (
        ([], 'has no detections: is it the result of a finished test'),
        (sample[0], 'is an annotation file: results are a list of detections'),
        ({'a': 1}, 'is not a list of detections, but a dict'),
        ([1], 'record 0 of .* has neither bbox nor segmentation'),
    ):
        with pytest.raises(UserError, match=message):
            read_detections(write(tmp_path / 'dt.json', content), ground_truth)


def test_images_without_a_size(sample):
    content, _ = sample
    del content['images'][1]['height']
    name = content['images'][1]['id']
    for height in (None, '480', 0, NAN):
        with pytest.raises(UserError, match=f"image {name} of 'gt' has no height and width"):
            _ = ground_truth_of(content, 'gt').image_areas
        content['images'][1]['height'] = height


RLE = dict(size=[200, 200], counts=[0, 40_000])


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        ([[1, 2]], 'a segmentation that is neither polygons'),
        ([[1, 2, NAN, 3, 4, 5]], 'a segmentation that is neither polygons'),
        ('x', 'a segmentation that is neither polygons'),
        (dict(RLE, size=[100, 200]), 'a mask of height and width .100, 200., its image has .200'),
        (dict(RLE, counts=[1]), 'a mask whose counts are not runs of its 40,000 pixels'),
        (dict(RLE, counts='1'), 'a mask whose counts are not runs of its 40,000 pixels'),
    ],
)
def test_wrong_masks_of_objects_concern_masks_alone(sample, mask, message):
    content, results = with_masks(*sample)
    content['annotations'][1]['segmentation'] = mask
    ground_truth = ground_truth_of(content, 'gt')
    name = f'annotation {content["annotations"][1]["id"]}'
    match = f"{name} of 'gt' .image_id .* has {message}.*: iou type bbox"
    with pytest.raises(UserError, match=match):
        evaluate(ground_truth, detections_of(results, 'dt', ground_truth), (), 'segm')
    evaluate(ground_truth, detections_of(sample[1], 'dt', ground_truth), (), 'bbox')


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        ([[1, 2, 3, 4, 5, 6]], 'a segmentation that is no run-length encoding'),
        (RLE, 'a mask whose counts are not compressed'),
        (dict(RLE, size=[100, 200]), 'a mask of height and width'),
        (dict(RLE, counts='PQRS'), 'a mask whose counts are not runs of its 40,000 pixels'),
    ],
)
def test_wrong_masks_of_detections(sample, mask, message):
    content, results = with_masks(*sample)
    ground_truth = ground_truth_of(content, 'gt')
    results[2]['segmentation'] = mask
    with pytest.raises(UserError, match=f"record 2 of 'dt' .image_id .* has {message}"):
        check_masks(detections_of(results, 'dt', ground_truth), ground_truth)


def test_uncompressed_masks_of_objects(sample):
    content, results = with_masks(*sample)
    ground_truth = ground_truth_of(content, 'gt')
    expected = evaluate(ground_truth, detections_of(results, 'dt', ground_truth), (), 'segm')
    for record in content['annotations']:
        flat = mask_api.decode(record['segmentation']).flatten('F')
        edges = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
        runs = np.diff(edges, prepend=0).tolist()
        record['segmentation'] = dict(size=[200, 200], counts=runs)
    ground_truth = ground_truth_of(content, 'gt')
    found = evaluate(ground_truth, detections_of(results, 'dt', ground_truth), (), 'segm')
    assert np.array_equal(found.precision, expected.precision)


def test_a_file_without_detections_where_it_may_be(tmp_path, sample):
    ground_truth = ground_truth_of(sample[0], 'gt')
    path = write(tmp_path / 'dt.json', [])
    detections = read_detections(path, ground_truth, may_be_empty=True)
    assert len(detections.scores) == len(detections.boxes) == len(detections.segmentations) == 0
