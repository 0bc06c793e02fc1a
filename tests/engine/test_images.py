"""A model with its weights, and images beside any data set."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from toolbox import CONFIGS, save_untrained

from mmbiformer.engine import load_config
from mmbiformer.engine.images import ImagePipeline, load_model
from mmbiformer.errors import UserError

CONFIG = CONFIGS / 'fpn_biformer_quickstart_shapes.py'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'model.pth'
    return save_untrained(CONFIG, path), str(path)


def test_weights_are_those_of_the_file(saved):
    written, path = saved
    model = load_model(load_config(str(CONFIG)), path, 'cpu')
    assert not model.training
    for one, other in zip(model.parameters(), written.parameters(), strict=True):
        assert torch.equal(one, other)


def test_classes_are_those_of_the_checkpoint(saved, tmp_path):
    _, path = saved
    content = torch.load(path, weights_only=True)
    content['meta'] = dict(dataset_meta=dict(classes=('a', 'b')))
    torch.save(content, tmp_path / 'model.pth')
    model = load_model(load_config(str(CONFIG)), str(tmp_path / 'model.pth'), 'cpu')
    assert model.dataset_meta['classes'] == ('a', 'b')


class TestRefusals:
    def refuse(self, text, config, checkpoint, device='cpu'):
        with pytest.raises(UserError, match=text):
            load_model(config, str(checkpoint), device)

    def test_a_missing_checkpoint(self, tmp_path):
        self.refuse('not found: check the path', load_config(str(CONFIG)), tmp_path / 'x.pth')

    def test_weights_of_another_model(self, saved):
        cfg = load_config(str(CONFIG), cfg_options={'model.decode_head.num_classes': 9})
        self.refuse('does not fit the config', cfg, saved[1])

    def test_a_part_that_cannot_be_built(self, saved):
        cfg = load_config(str(CONFIG), cfg_options={'model.backbone.partition_factor': 0})
        self.refuse('partition_factor=0', cfg, saved[1])

    @pytest.mark.parametrize('device', ['gpu', 'cuda:99'])
    def test_a_device_that_is_none(self, saved, device):
        cfg = load_config(str(CONFIG))
        self.refuse(f"device '{device}' cannot be used", cfg, saved[1], device)


def test_an_image_passes_the_pipeline(tmp_path):
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    original, data = ImagePipeline(load_config(str(CONFIG))).prepare(str(tmp_path / 'image.png'))
    np.testing.assert_array_equal(original, image)
    assert data['inputs'][0].shape == (3, 20, 30)
    assert data['data_samples'][0].ori_shape == (20, 30)


def test_no_image(tmp_path):
    (tmp_path / 'image.png').write_text('text')
    with pytest.raises(UserError, match=r"image\.png' "):
        ImagePipeline(load_config(str(CONFIG))).prepare(str(tmp_path / 'image.png'))


def test_a_pipeline_without_an_image():
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='PackInputs')]))))
    with pytest.raises(UserError, match='must begin with LoadImageFromFile'):
        ImagePipeline(cfg)
