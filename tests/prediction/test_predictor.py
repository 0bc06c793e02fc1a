"""Predictions are those of the model, and colours stay what they are."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from prediction_cases import DETECTOR, SEGMENTER, noise, untrained
from toolbox import ROOT

from mmbiformer.engine import load_config
from mmbiformer.engine.images import ImagePipeline, load_model
from mmbiformer.errors import UserError
from mmbiformer.prediction import Predictor

CLASSES = 'circle', 'square', 'triangle', 'star', 'ring', 'cross'
CIRCLE, SQUARE = (214, 39, 40), (31, 119, 180)  # of the palette, red first


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('predictor')
    cv2.imwrite(str(folder / 'image.png'), noise())
    for config in (DETECTOR, SEGMENTER):
        untrained(config, folder)
    return folder


@pytest.fixture(scope='module')
def predictors(folder):
    return {
        config: Predictor(str(config), str(folder / f'{config.stem}.pth'), 'cpu')
        for config in (DETECTOR, SEGMENTER)
    }


def values_of(sample):
    if 'pred_sem_seg' in sample:
        return [sample.pred_sem_seg.data]
    return [sample.pred_instances[key] for key in ('bboxes', 'scores', 'labels')]


def scores_of(sample):
    """What labels are the largest of: two that nearly tie may change places by a rounding."""
    return [sample.seg_logits.data] if 'seg_logits' in sample else values_of(sample)


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTER], ids=['detector', 'segmenter'])
def test_files_and_arrays_give_what_the_model_gives(folder, predictors, config):
    cfg = load_config(str(config))
    model = load_model(cfg, str(folder / f'{config.stem}.pth'), 'cpu')
    image, data = ImagePipeline(cfg).prepare(str(folder / 'image.png'))
    with torch.no_grad():
        expected = values_of(model.test_step(data)[0])
    assert len(expected[0]) > 0
    for given in (str(folder / 'image.png'), image):
        found = values_of(predictors[config](given))
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTER], ids=['detector', 'segmenter'])
def test_a_batch_gives_what_each_gives(predictors, config):
    images = [noise(seed) for seed in range(3)]
    for found, image in zip(predictors[config].predict(images, 2), images, strict=True):
        alone = predictors[config](image)
        for one, other in zip(scores_of(found), scores_of(alone), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def boxes(*rows, score=0.5):
    instances = InstanceData(
        bboxes=torch.tensor([row[:4] for row in rows]).float(),
        labels=torch.tensor([row[4] for row in rows]),
        scores=torch.full((len(rows),), score),
    )
    return DetDataSample(pred_instances=instances)


def test_boxes_have_their_colour_and_the_picture_keeps_its_own(predictors):
    image = np.zeros((200, 200, 3), np.uint8)
    image[120:160, 120:160] = 0, 0, 255  # a red object
    drawn = predictors[DETECTOR].draw(image, boxes((20, 20, 80, 90, 0), (100, 30, 180, 90, 1)))
    np.testing.assert_array_equal(drawn[140, 140], (0, 0, 255))
    for (x, y), colour in (((50, 90), CIRCLE), ((180, 60), SQUARE)):
        # Lines are laid over the black picture at an opacity of 0.8.
        np.testing.assert_allclose(drawn[y, x], 0.8 * np.array(colour[::-1]), atol=4)


def test_boxes_of_a_low_score_are_not_drawn(predictors):
    image = noise()
    sample = boxes((20, 20, 80, 70, 0), score=0.4)
    predictor = predictors[DETECTOR]
    np.testing.assert_array_equal(predictor.draw(image, sample, 0.5), image)
    assert (predictor.draw(image, sample) != image).any()


def test_segments_have_their_colour_over_the_picture(predictors):
    image = np.full((160, 160, 3), (0, 0, 200), np.uint8)
    labels = torch.zeros(1, 160, 160, dtype=torch.long)
    labels[:, 80:] = 1  # circle, behind the background
    drawn = predictors[SEGMENTER].draw(image, SegDataSample(pred_sem_seg=PixelData(data=labels)))
    expected = (np.array(CIRCLE[::-1]) + (0, 0, 200)) / 2
    np.testing.assert_allclose(drawn[150, 5], expected, atol=1)


def test_a_picture_of_one_pixel(predictors):
    for predictor in predictors.values():
        image = noise()[:1, :1]
        assert predictor.draw(image, predictor(image)).shape == (1, 1, 3)


def test_names_are_those_of_the_checkpoint(folder, tmp_path, predictors):
    assert predictors[DETECTOR].metainfo['classes'] == CLASSES
    content = torch.load(folder / f'{DETECTOR.stem}.pth', weights_only=True)
    names = tuple('abcdef')
    content['meta'] = dict(dataset_meta=dict(classes=names))
    torch.save(content, tmp_path / 'named.pth')
    predictor = Predictor(str(DETECTOR), str(tmp_path / 'named.pth'), 'cpu')
    assert predictor.metainfo['classes'] == names
    assert predictor.metainfo['palette'][0] == CIRCLE
    content['meta'] = dict(dataset_meta=dict(classes=names[:5]))
    torch.save(content, tmp_path / 'fewer.pth')
    with pytest.raises(UserError, match='heads that have not the 5 classes'):
        Predictor(str(DETECTOR), str(tmp_path / 'fewer.pth'), 'cpu')


def test_names_of_classes_stand_where_mmseg_puts_them():
    from mmseg.visualization import SegLocalVisualizer

    from mmbiformer.prediction.inferencers import middle_of_longest_row

    slow = SegLocalVisualizer()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = (rng.random((9, 14)) < 0.1 + 0.04 * seed).astype(np.uint8)
        mask[rng.integers(9), rng.integers(14)] = 1
        np.testing.assert_array_equal(middle_of_longest_row(mask), slow._get_center_loc(mask))


def test_the_lines_of_the_page_run(folder, monkeypatch):
    page = (ROOT / 'docs/prediction.md').read_text()
    (code, *_) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert len([x for x in code.splitlines() if x]) == 3
    monkeypatch.chdir(folder)
    for name, given in (
        ('config.py', f"_base_ = '{DETECTOR}'\n"),
        ('epoch_12.pth', (folder / f'{DETECTOR.stem}.pth').read_bytes()),
        ('street.jpg', cv2.imencode('.jpg', noise())[1].tobytes()),
    ):
        (folder / name).write_bytes(given if isinstance(given, bytes) else given.encode())
    names = {}
    exec(code, names)
    assert names['prediction'].pred_instances.bboxes.shape[1] == 4


class TestRefusals:
    def refuse(self, text, config, checkpoint, **options):
        with pytest.raises(UserError, match=text):
            Predictor(str(config), str(checkpoint), 'cpu', **options)

    def test_weights_of_another_model(self, folder):
        self.refuse('does not fit the config', DETECTOR, folder / f'{SEGMENTER.stem}.pth')

    def test_a_missing_checkpoint(self, tmp_path):
        self.refuse('not found: check the path', DETECTOR, tmp_path / 'x.pth')

    def test_a_classifier(self, folder):
        config = ROOT / 'configs/classification/biformer_quickstart_shapes.py'
        self.refuse('this config is of mmpretrain', config, folder / f'{DETECTOR.stem}.pth')

    def test_slices_of_a_segmenter(self, folder):
        checkpoint = folder / f'{SEGMENTER.stem}.pth'
        self.refuse('--sliced is for detectors', SEGMENTER, checkpoint, slice_side=64)

    def test_no_visualizer(self, folder, tmp_path):
        config = tmp_path / 'config.py'
        config.write_text(f"_base_ = '{DETECTOR}'\nvisualizer = None\n")
        self.refuse('the config has no visualizer', config, folder / f'{DETECTOR.stem}.pth')

    def test_no_names_of_classes(self, folder, tmp_path):
        config = tmp_path / 'config.py'
        dataset = "dict(type='BaseDetDataset', metainfo=dict(_delete_=True))"
        config.write_text(f"_base_ = '{DETECTOR}'\ntest_dataloader = dict(dataset={dataset})\n")
        checkpoint = folder / f'{DETECTOR.stem}.pth'
        self.refuse('neither the checkpoint nor the config names classes', config, checkpoint)
