"""Data are checked by the tool of its own, before a run and while they are loaded."""

import json

import pytest
from toolbox import CONFIGS, IN_PROCESS, SAMPLES, run_tool

from mmbiformer.datasets.shapes import make_shapes

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTATION = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
# Of so many images the quick check opens every second.
NUM_IMAGES = 20


@pytest.fixture
def shapes(tmp_path):
    return make_shapes(tmp_path / 'shapes', num_train=NUM_IMAGES, num_val=2)


def fail(capsys, *args: object) -> str:
    """Run a tool that must fail; returns its one line."""
    with pytest.raises(SystemExit) as stop:
        run_tool(*args)
    assert stop.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error:')]
    return line


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_shapes_pass(shapes, tmp_path, config, capsys) -> None:
    run_tool('check_data', config, '--data-root', shapes, '--work-dir', tmp_path / 'run')
    report = json.loads((tmp_path / 'run/data_check.json').read_text())
    train, val = report['datasets']
    assert report['ok'] and (train['opened'], val['opened']) == (NUM_IMAGES, 2)
    assert 'train: ' in (said := capsys.readouterr().out) and f'{NUM_IMAGES} images' in said


@pytest.mark.parametrize(
    ('config', 'sample'),
    [
        ('mask-rcnn_biformer-t_fpn_1x_coco.py', 'coco_tiny'),
        ('fpn_biformer-t_8xb4-80k_ade20k-512x512.py', 'ade20k_sample'),
    ],
)
def test_real_samples_pass(tmp_path, config, sample, capsys) -> None:
    if not (SAMPLES / sample).is_dir():
        pytest.skip(f'{SAMPLES / sample} is not there: set MMBIFORMER_SAMPLES')
    options = '--data-root', SAMPLES / sample, '--work-dir', tmp_path
    run_tool('check_data', CONFIGS / config, *options)
    assert 'officially' in capsys.readouterr().out


def test_a_broken_image_is_found(shapes, tmp_path, capsys) -> None:
    (shapes / 'images/training/000003.jpg').write_bytes(b'')
    options = '--data-root', shapes, '--work-dir', tmp_path / 'run'
    line = fail(capsys, 'check_data', DETECTION, *options)
    assert '1 kinds of errors in the data' in line and 'data_check.json' in line
    report = json.loads((tmp_path / 'run/data_check.json').read_text())
    assert "000003.jpg' is empty" in report['datasets'][0]['errors'][0]['line']


def test_a_head_of_another_number_of_classes_does_not_train(shapes, tmp_path, capsys) -> None:
    options = '--data-root', shapes, '--work-dir', tmp_path / 'run', '--cfg-options'
    line = fail(capsys, 'train', DETECTION, *options, 'model.bbox_head.num_classes=80')
    assert 'model.bbox_head.num_classes=80; set them, as --cfg-options' in line
    line = fail(capsys, 'train', SEGMENTATION, *options, 'model.decode_head.num_classes=150')
    assert 'model.decode_head.num_classes=150' in line and '7 classes of the dataset' in line


def test_a_worker_that_cannot_load_ends_training_by_name(shapes, tmp_path, capsys) -> None:
    for number in range(1, NUM_IMAGES, 2):
        path = shapes / f'images/training/{number:06d}.jpg'
        path.write_bytes(path.read_bytes()[:-9])
    options = '--data-root', shapes, '--work-dir', tmp_path / 'run', '--cfg-options'
    line = fail(capsys, 'train', DETECTION, *options, 'train_dataloader.num_workers=2')
    assert ".jpg' is cut off: restore it" in line


def test_training_leaves_out_as_many_as_the_config_says(shapes, tmp_path) -> None:
    (shapes / 'images/training/000003.jpg').write_bytes(b'')
    options = ['max_skipped=1', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9', *IN_PROCESS]
    run_tool(
        *('train', DETECTION, '--data-root', shapes, '--work-dir', tmp_path / 'run'),
        *('--cfg-options', *options),
    )
    (log,) = tmp_path.glob('run/*/*.log')
    assert "000003.jpg', 1 of at most 1 images: it is empty" in log.read_text()
