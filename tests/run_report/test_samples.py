"""Predictions beside ground truth and routing, of the checkpoint of a run."""

from pathlib import Path

import numpy as np
import pytest
from toolbox import CONFIGS, ROOT, TTA, save_untrained

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.engine import load_config
from mmbiformer.engine.loading import check_loading
from mmbiformer.errors import UserError
from mmbiformer.run_report import RunRecord
from mmbiformer.run_report import samples as module
from mmbiformer.run_report.samples import choose_evenly, draw_samples

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTATION = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
CLASSIFICATION = ROOT / 'configs/classification/biformer_quickstart_shapes.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders of data: of many shapes in an image, and of single ones."""
    root = tmp_path_factory.mktemp('data')
    make_shapes(root / 'shapes', num_train=6, num_val=3)
    make_single_shapes(root / 'single', num_train=6, num_val=6)
    return root


@pytest.fixture
def one_routed(monkeypatch):
    """Routing of one image alone: its pictures take most of the time."""
    monkeypatch.setattr(module, 'NUM_ROUTED', 1)


def record(config, data_root, checkpoint, **options):
    cfg = load_config(str(config), data_root=str(data_root), cfg_options=options)
    return RunRecord('run', checkpoint.parent, cfg, [], [], [], [], str(checkpoint), None)


@pytest.mark.parametrize(
    ('config', 'folder', 'num_predictions', 'size', 'num_routed'),
    [
        (DETECTION, 'shapes', 3, (160, 320), 2),
        (SEGMENTATION, 'shapes', 3, (160, 320), 1),
        (CLASSIFICATION, 'single', 4, (320, 320), 1),
    ],
    ids=['detection', 'segmentation', 'classification'],
)
def test_samples_of_each_task(
    data, tmp_path, monkeypatch, config, folder, num_predictions, size, num_routed
):
    checkpoint = tmp_path / 'model.pth'
    save_untrained(config, checkpoint)
    run = record(config, data / folder, checkpoint)
    check_loading(run.cfg, ('val', 'test'))  # as the config of a test is written down
    monkeypatch.setattr(module, 'NUM_ROUTED', num_routed)  # their pictures take longest
    samples = list(draw_samples(run, 'cpu'))
    predictions = [x for x in samples if x.kind == 'prediction']
    routed = [x for x in samples if x.kind == 'routing']
    assert len(predictions) == num_predictions
    assert len(routed) == num_routed
    for sample in predictions:
        assert sample.pixels.shape == (*size, 3)
        assert 'ground truth' in sample.caption
    names = [x.caption.partition(':')[0] for x in predictions]
    assert len(set(names)) == num_predictions
    assert [x.caption.partition(',')[0] for x in routed] == names[:num_routed]
    if config is DETECTION:
        # What an untrained detector draws differs from the ground truth on the left.
        left, right = np.split(predictions[0].pixels, 2, axis=1)
        assert (left != right).any()
        assert all('surest detection' in x.caption for x in routed)


def test_a_model_that_does_not_route_has_predictions_alone(data, tmp_path):
    config = tmp_path / 'plain.py'
    arch = "type='mmbiformer.CloFormer', arch='xxs', _delete_=True, out_indices=(1, 2, 3)"
    neck = 'in_channels=[64, 128, 256]'
    config.write_text(
        f"_base_ = '{DETECTION}'\nmodel = dict(backbone=dict({arch}), neck=dict({neck}))\n"
    )
    save_untrained(config, tmp_path / 'plain.pth')
    samples = list(draw_samples(record(config, data / 'shapes', tmp_path / 'plain.pth'), 'cpu'))
    assert {x.kind for x in samples} == {'prediction'}


@pytest.mark.usefixtures('one_routed')
def test_of_a_test_with_augmentation_the_model_itself_is_shown(data, tmp_path):
    config = tmp_path / 'tta.py'
    config.write_text(f"_base_ = '{SEGMENTATION}'\n{TTA}")
    save_untrained(SEGMENTATION, tmp_path / 'model.pth')
    run = record(config, data / 'shapes', tmp_path / 'model.pth')
    run.cfg.test_dataloader.dataset.pipeline = run.cfg.tta_pipeline
    run.cfg.model = dict(**run.cfg.tta_model, module=run.cfg.model)
    assert len(list(draw_samples(run, 'cpu'))) == 4


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda run: setattr(run, 'checkpoint', None), 'there is no checkpoint yet'),
        (lambda run: run.cfg.update(val_dataloader=None, test_dataloader=None), 'no validation'),
        (lambda run: Path(run.checkpoint).unlink(), 'not found'),
    ],
    ids=['no checkpoint', 'no data', 'checkpoint gone'],
)
def test_why_there_are_none_is_said(data, tmp_path, change, text):
    (tmp_path / 'model.pth').touch()
    run = record(DETECTION, data / 'shapes', tmp_path / 'model.pth')
    change(run)
    with pytest.raises(UserError, match=text):
        list(draw_samples(run, 'cpu'))


def test_missing_data_are_named(tmp_path):
    (tmp_path / 'model.pth').touch()
    with pytest.raises(UserError, match='nowhere'):
        list(draw_samples(record(DETECTION, tmp_path / 'nowhere', tmp_path / 'model.pth'), 'cpu'))


def test_images_lie_far_apart():
    assert choose_evenly(100, 4) == [0, 33, 66, 99]
    assert choose_evenly(2, 4) == [0, 1]
