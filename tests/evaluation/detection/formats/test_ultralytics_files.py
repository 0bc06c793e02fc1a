"""Ultralytics' predictions.json: images by file name, classes as it numbers them."""

import pytest
from other_formats import (
    COCO91,
    as_predictions_json,
    coco_content,
    coco_results,
    random_sample,
    write_json,
)

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.coco_files import ground_truth_of
from mmbiformer.evaluation.detection.formats.matching import COCO_IDS
from mmbiformer.evaluation.detection.formats.reading import read_detections

SAMPLE = random_sample(0)


@pytest.fixture
def read(tmp_path):
    def read(records, content, **options):
        path = write_json(tmp_path / 'predictions.json', records)
        return read_detections(path, ground_truth_of(content, 'gt'), **options)

    return read


def predictions(ids=None, sample=SAMPLE, has_file_names=True):
    content = coco_content(sample, ids)
    return as_predictions_json(coco_results(sample, ids), content, has_file_names), content


def expected_images(sample=SAMPLE):
    return [i for i, x in enumerate(sorted(sample.sizes)) for _ in sample.found[x]]


def test_ids_of_coco():
    assert COCO_IDS == COCO91
    assert len(COCO_IDS) == 80


def test_images_by_file_name(read):
    records, content = predictions()
    # Ids of the ground truth that are those of other images' names.
    for i, image in enumerate(content['images']):
        number = content['images'][i - 1]['file_name'].removesuffix('.jpg')
        for record in content['annotations']:
            if record['image_id'] == image['id']:
                record['image_id'] = int(number)
        image['id'] = int(number)
    names = sorted(content['images'], key=lambda x: x['id'])
    names = [x['file_name'] for x in names]
    found = read(records, content)
    assert [names[i] for i in found.image] == [x['file_name'] for x in records]
    for image in content['images']:
        image['file_name'] = f'val2017/{image["file_name"]}'
    assert (read(records, content).image == found.image).all()
    for image in content['images']:
        image['file_name'] = image['file_name'].replace('jpg', 'png')
    assert (read(records, content).image == found.image).all()


@pytest.mark.parametrize('has_file_names', [False, True])
def test_images_by_stems(read, has_file_names):
    sample = random_sample(0, ['one.jpg', 'two.v2.jpg', '003.jpg', '4.jpg', 'five.jpg', 'six.jpg'])
    records, content = predictions(None, sample, has_file_names)
    assert {type(x['image_id']) for x in records} == {int, str}
    assert read(records, content).image.tolist() == expected_images(sample)


def test_images_by_id_where_annotations_name_no_files(read):
    records, content = predictions()
    for image in content['images']:
        number = int(image.pop('file_name').removesuffix('.jpg'))
        for record in content['annotations']:
            if record['image_id'] == image['id']:
                record['image_id'] = number
        image['id'] = number
    found = read(records, content)
    ids = sorted(x['id'] for x in content['images'])
    assert [ids[i] for i in found.image] == [x['image_id'] for x in records]
    for category, number in zip(content['categories'], (2, 3, 4), strict=True):
        category['id'] = number
    content['annotations'] = []
    again = read(records, content, class_names=[f'kind {i}' for i in range(3)])
    assert (again.category == found.category).all()


def test_other_files_have_coco_s_ids(read):
    """A file name that image_id is not made of says nothing."""
    _, content = predictions()
    results = [dict(x, file_name='000000000139.jpg') for x in coco_results(SAMPLE)]
    assert read(results, content).image.tolist() == expected_images()


def test_images_of_another_data_set(read):
    records, content = predictions()
    records[3].update(image_id=5, file_name='5.jpg')
    with pytest.raises(
        UserError, match=r"record 3 .* has file_name '5.jpg', which is not in 'gt' .1"
    ):
        read(records, content)
    for record in records:
        record.update(image_id=5, file_name='5.jpg')
    with pytest.raises(UserError, match=r"file_name '5.jpg', which is not in 'gt' .all of them"):
        read(records, content)


def test_images_that_differ_in_their_endings(read):
    sample = random_sample(0, ['1.jpg', '1.png', '2.jpg'])
    records, content = predictions(None, sample)
    assert read(records, content).image.tolist() == expected_images(sample)


def test_a_name_of_two_images(read):
    sample = random_sample(0, ['a/1.jpg', 'b/1.jpg', 'c/2.jpg'])
    records, content = predictions(None, sample)
    message = r"image '1.jpg' of .* may be 'a/1.jpg' or 'b/1.jpg' of 'gt': name images by paths"
    with pytest.raises(UserError, match=message):
        read(records, content)


def test_classes_counted_from_1_whatever_the_ids(read):
    records, content = predictions()
    for ids in ([0, 1, 2], [5, 7, 9]):
        for category, number in zip(content['categories'], ids, strict=True):
            category['id'] = number
        for record in content['annotations']:
            record['category_id'] = ids[0]
        with pytest.raises(UserError, match=r"fit the categories of 'gt' as from-1, .*--classes"):
            read(records, content)
        for options in (
            dict(class_numbers='from-1'),
            dict(class_names=['kind 0', 'kind 1', 'kind 2']),
        ):
            found = read(records, content, **options)
            assert (found.category + 1).tolist() == [x['category_id'] for x in records]
    reverse = read(records, content, class_names=['kind 2', 'kind 1', 'kind 0'])
    assert (3 - reverse.category).tolist() == [x['category_id'] for x in records]


def test_the_oldest_releases_count_from_0(read):
    records, content = predictions(None, random_sample(0, ['a.jpg', 'b.jpg', 'c.jpg']), False)
    expected = [x['category_id'] - 1 for x in records]
    for record in records:
        record['category_id'] -= 1
    assert read(records, content).category.tolist() == expected


def test_classes_in_doubt(read):
    """Of COCO's annotations, the first 11 have the same number either way, the 13th has not."""
    sample = random_sample(0, num_classes=80)
    for rows in sample.found.values():
        rows[:] = [[12, *row[1:]] for row in rows]
    records, content = predictions(COCO91, sample)
    assert {x['category_id'] for x in records} == {14}
    with pytest.raises(
        UserError, match=r'as ids or from-1, which is not clear: .*--class-numbers'
    ):
        read(records, content)
    assert set(read(records, content, class_numbers='coco').category) == {12}
    assert set(read(records, content, class_numbers='from-1').category) == {13}
    for record in records:
        record['category_id'] = 11
    assert set(read(records, content).category) == {10}


def test_classes_that_are_none(read):
    records, content = predictions()
    records[2]['category_id'] = 4
    message = r"record 2 .* has the class 4, which is not in 'gt' .1 of .*, read as ids or from-1"
    with pytest.raises(UserError, match=message):
        read(records, content)
    records[2]['category_id'] = None
    with pytest.raises(UserError, match=r'record 2 .* has the class None, not a whole number'):
        read(records, content)
    del records[2]['category_id']
    with pytest.raises(UserError, match=r'record 2 .* has the class None'):
        read(records, content)


def test_a_way_to_count_that_is_none(read):
    with pytest.raises(
        ValueError, match=r"class_numbers 'from-2': give one of ids, from-0, from-1"
    ):
        read(*predictions(), class_numbers='from-2')


def test_classes_of_one_name(read):
    records, content = predictions()
    for names in (['kind 0', 'kind 0', 'kind 1'], ['kind 0', 'kind 1', 'kind 2']):
        with pytest.raises(UserError, match=r'--classes cannot tell classes of one name apart'):
            read(records, content, class_names=names)
        content['categories'][1]['name'] = 'kind 0'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(bbox=[1, 2, 3, -4]), 'record 2 .* of negative width or height'),
        (dict(bbox=[1, 2, 3, float('nan')]), 'record 2 .* has bbox'),
        (dict(score=None), 'record 2 .* has score None'),
        (dict(segmentation={}), 'record 2 .* has bbox and segmentation, while record 0 has bbox'),
    ],
)
def test_records_are_checked_as_coco_s(read, change, message):
    records, content = predictions()
    records[2].update(change)
    with pytest.raises(UserError, match=message):
        read(records, content)


def test_json_of_no_format(read):
    _, content = predictions()
    for other, message in (
        (7, 'is not a list of detections, but a int'),
        (dict(x=dict(bbox=[1, 2, 3, 4])), 'is not a list of detections, but a dict'),
        ([dict(file_name='1.jpg')], 'record 0 of .* has neither bbox nor segmentation'),
    ):
        with pytest.raises(UserError, match=message):
            read(other, content)


def test_a_name_that_is_an_id_by_chance_is_no_id(read):
    """Of an image that the ground truth does not name, though its number is the id of another."""
    records, content = predictions()
    for number, image in enumerate(content['images'], 1):
        image['file_name'] = f'camera_{number}.jpg'
    first = content['images'][0]['id']
    for record in records:
        record.update(image_id=first, file_name=f'{first}.jpg')
    with pytest.raises(UserError, match=rf"file_name '{first}.jpg', which is not in 'gt'"):
        read(records, content)
