"""What an explorer says of an image: predictions, ground truth, and missed objects."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from mmbiformer.errors import UserError
from mmbiformer.visualization.explorer.scene import (
    Scene,
    Thing,
    check_truth,
    find_missed,
    predicted,
    read_truth,
)

CLASSES = ['cat', 'dog']


def things(*given) -> list[Thing]:
    return [Thing(*x) for x in given]


class TestMissed:
    truth = things(((0, 0, 10, 10), 'cat'), ((0, 0, 10, 10), 'dog'), ((20, 0, 30, 10), 'cat'))

    def test_without_detections_all_are(self):
        assert find_missed(self.truth, []) == [True] * 3

    def test_a_detection_is_of_its_class(self):
        assert find_missed(self.truth, things(((1, 0, 11, 10), 'dog', 0.5))) == [True, False, True]

    def test_half_must_overlap(self):
        # 10 x 10 moved by 3: IoU 7 / 13; by 4: 6 / 14.
        for shift, missed in ((3, False), (4, True)):
            found = things(((20 + shift, 0, 30 + shift, 10), 'cat', 0.5))
            assert find_missed(self.truth, found)[2] is missed

    def test_a_detection_counts_for_one_object(self):
        twins = things(((0, 0, 10, 10), 'cat'), ((1, 0, 11, 10), 'cat'))
        once = things(((0, 0, 10, 10), 'cat', 0.9))
        assert find_missed(twins, once) == [False, True]
        assert find_missed(twins, once + things(((0, 0, 10, 10), 'cat', 0.4))) == [False, False]

    def test_no_objects(self):
        assert find_missed([], things(((0, 0, 1, 1), 'cat', 0.5))) == []


class TestPredicted:
    def test_detections_from_a_score_on(self):
        instances = InstanceData(
            bboxes=torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
            labels=torch.tensor([1, 0]),
            scores=torch.tensor([0.75, 0.25]),
        )
        sample = BaseDataElement(pred_instances=instances)
        assert predicted(sample, CLASSES, 0.5).things == things(((1, 2, 3, 4), 'dog', 0.75))
        assert len(predicted(sample, CLASSES, 0).things) == 2

    def test_a_label_map(self):
        labels = torch.tensor([[[0, 1]]])
        sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
        assert predicted(sample, CLASSES, 0.5).labels.tolist() == [[0, 1]]

    def test_a_label_of_the_whole(self):
        sample = BaseDataElement(pred_score=torch.tensor([0.125, 0.875]))
        assert predicted(sample, CLASSES, 0.5).text == 'dog, 87.5 %'


class TestTruth:
    def test_a_coco_file(self, tmp_path):
        boxes = dict(image_id=1, category_id=3, bbox=[1, 2, 3, 4], area=12)
        content = dict(
            images=[dict(id=1, file_name='sub/a.jpg', width=9, height=9)],
            categories=[dict(id=3, name='dog')],
            annotations=[
                dict(boxes, id=1, iscrowd=0),
                dict(boxes, id=2, iscrowd=1),
            ],
        )
        path = tmp_path / 'instances.json'
        path.write_text(json.dumps(content))
        scenes = read_truth(str(path), [tmp_path / 'a.jpg'], {})
        assert scenes['a.jpg'].things == things(((1, 2, 4, 6), 'dog'))
        with pytest.raises(UserError, match='has no record of 1 of 1 images'):
            read_truth(str(path), [tmp_path / 'b.jpg'], {})

    def test_two_images_of_one_name(self, tmp_path):
        content = dict(
            images=[dict(id=i, file_name=f'{i}/a.jpg', width=9, height=9) for i in range(2)],
            categories=[dict(id=3, name='dog')],
            annotations=[],
        )
        (tmp_path / 'instances.json').write_text(json.dumps(content))
        with pytest.raises(UserError, match='several images named'):
            read_truth(str(tmp_path / 'instances.json'), [tmp_path / 'a.jpg'], {})

    def test_a_class_that_the_model_does_not_know(self):
        truth = Scene(things(((0, 0, 1, 1), 'bird')))
        with pytest.raises(UserError, match="the class 'bird', which a model does not know"):
            check_truth(truth, Scene([]), CLASSES, 'a model')

    @pytest.mark.parametrize(('reduced', 'expected'), [(False, [0, 1]), (True, [255, 0])])
    def test_label_maps(self, tmp_path, reduced, expected):
        Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / 'a.png')
        meta = dict(classes=CLASSES, reduce_zero_label=reduced)
        scenes = read_truth(str(tmp_path), [tmp_path / 'images/a.jpg'], meta)
        assert scenes['a.jpg'].labels.tolist() == [expected]
        with pytest.raises(UserError, match='has no record of 1 of 1 images'):
            read_truth(str(tmp_path), [tmp_path / 'b.jpg'], meta)
