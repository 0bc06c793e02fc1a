"""What is written of predictions: ids, boxes, masks, label maps."""

import json

import cv2
import numpy as np
import pytest
from prediction_cases import MASKS, noise, untrained
from pycocotools import mask as mask_utils

from mmbiformer.errors import UserError
from mmbiformer.prediction import Predictor, open_source
from mmbiformer.prediction.outputs import CocoResults, LabelMaps


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two images, and a small Mask R-CNN with the names of COCO."""
    folder = tmp_path_factory.mktemp('outputs')
    (folder / 'images').mkdir()
    for number, name in enumerate(('a.png', 'b.png')):
        cv2.imwrite(str(folder / 'images' / name), noise(number))
    (folder / 'masks.py').write_text(MASKS)
    untrained(folder / 'masks.py', folder)
    return folder


@pytest.fixture(scope='module')
def predictor(folder):
    return Predictor(str(folder / 'masks.py'), str(folder / 'masks.pth'), 'cpu')


def annotations(path, predictor, names=('b.png', 'a.png'), spare=1):
    """A COCO file in which ids are in no order that could be guessed."""
    classes = predictor.metainfo['classes'][::-1]
    content = dict(
        images=[dict(id=7 - i, file_name=f'images/{x}') for i, x in enumerate(names)],
        categories=[dict(id=3 * i + 5, name=x) for i, x in enumerate(classes[spare - 1 :])],
        annotations=[],
    )
    path.write_text(json.dumps(content))
    return str(path)


def results_of(folder, predictor, out_dir, given=None):
    source = open_source(str(folder / 'images'))
    results = CocoResults(source, predictor.inferencer, given)
    samples = []
    for frame in source:
        samples.append(predictor(frame.path))
        results.add(frame, samples[-1])
    paths = results.write(out_dir)
    return samples, [json.loads(x.read_text()) for x in paths], [x.name for x in paths]


def test_boxes_and_masks_are_those_of_the_prediction(folder, predictor, tmp_path):
    samples, (records, images), names = results_of(folder, predictor, tmp_path)
    assert names == ['predictions.json', 'images.json']
    assert [(x['id'], x['file_name']) for x in images['images']] == [(1, 'a.png'), (2, 'b.png')]
    assert [(x['width'], x['height']) for x in images['images']] == [(128, 96)] * 2
    classes = {x['id']: x['name'] for x in images['categories']}
    assert list(classes) == list(range(1, 81))
    assert len(records) == sum(len(x.pred_instances) for x in samples) > 4
    first = samples[0].pred_instances
    for i, record in enumerate(records[: len(first)]):
        x, y, width, height = record['bbox']
        expected = first.bboxes[i].tolist()
        assert [x, y, x + width, y + height] == pytest.approx(expected)
        assert record['score'] == pytest.approx(float(first.scores[i]))
        name = predictor.metainfo['classes'][first.labels[i]]
        assert (record['image_id'], classes[record['category_id']]) == (1, name)
        mask = mask_utils.decode(record['segmentation']).astype(bool)
        np.testing.assert_array_equal(mask, first.masks[i].numpy())


def test_ids_are_those_of_the_annotations(folder, predictor, tmp_path):
    given = annotations(tmp_path / 'instances.json', predictor)
    samples, (records,), _ = results_of(folder, predictor, tmp_path, given)
    counts = [len(x.pred_instances) for x in samples]
    assert [x['image_id'] for x in records] == [6] * counts[0] + [7] * counts[1]
    labels = [int(label) for x in samples for label in x.pred_instances.labels]
    assert [x['category_id'] for x in records] == [3 * (79 - x) + 5 for x in labels]


class TestRefusals:
    def refuse(self, text, folder, predictor, given, source=None):
        with pytest.raises(UserError, match=text):
            CocoResults(source or open_source(str(folder)), predictor.inferencer, given)

    def test_an_image_that_the_annotations_lack(self, folder, predictor, tmp_path):
        given = annotations(tmp_path / 'x.json', predictor, names=('a.png', 'c.png'))
        self.refuse("has 0 records of 'b.png'", folder / 'images', predictor, given)

    def test_images_that_the_annotations_name_alike(self, folder, predictor, tmp_path):
        given = annotations(tmp_path / 'x.json', predictor, names=('a.png', 'b.png', 'b.png'))
        self.refuse("has 2 records of 'b.png'", folder / 'images', predictor, given)

    def test_a_class_that_the_annotations_lack(self, folder, predictor, tmp_path):
        given = annotations(tmp_path / 'x.json', predictor, spare=2)
        self.refuse("has no category 'toothbrush'", folder / 'images', predictor, given)

    def test_maps_of_one_name(self, tmp_path):
        for name in ('a.png', 'a.jpg', 'b.png'):
            cv2.imwrite(str(tmp_path / name), noise())
        with pytest.raises(UserError, match="2 images are called 'a'"):
            LabelMaps(open_source(str(tmp_path)), tmp_path, False)
