"""What the options of tools/train.py and tools/test.py do, on a handful of generated images."""

import os
import pickle

import pytest
import torch
from toolbox import CONFIGS, IN_PROCESS, TTA, metrics_of, run_tool, save_untrained

from mmbiformer.checkpoints import find_damage
from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.ops import backends

NUM_VAL = 3
DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTATION = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
TASKS = pytest.mark.parametrize(
    'config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation']
)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes'
    return make_shapes(root, num_train=4, num_val=NUM_VAL)


@TASKS
def test_pictures_and_predictions_are_written(tmp_path, shapes, config) -> None:
    checkpoint = tmp_path / 'untrained.pth'
    save_untrained(config, checkpoint)
    for run in ('first', 'second'):
        folder = tmp_path / run
        out = folder / ('maps' if config is SEGMENTATION else 'detections.pkl')
        run_tool(
            *('test', config, checkpoint, '--data-root', shapes, '--work-dir', folder),
            *('--show-dir', folder / 'pictures', '--out', out, '--cfg-options', *IN_PROCESS),
        )
        pictures = [*(folder / 'pictures').rglob('*.jpg'), *(folder / 'pictures').rglob('*.png')]
        assert len(pictures) == NUM_VAL
        if config is SEGMENTATION:
            assert len(list(out.glob('*.png'))) == NUM_VAL
        else:
            assert len(pickle.loads(out.read_bytes())) == NUM_VAL


def test_test_time_augmentation_changes_the_result(tmp_path, shapes) -> None:
    checkpoint = tmp_path / 'untrained.pth'
    save_untrained(SEGMENTATION, checkpoint)
    config = tmp_path / 'tta.py'
    config.write_text(f"_base_ = '{SEGMENTATION}'\n{TTA}")
    found = []
    for option in ([], ['--tta']):
        folder = tmp_path / f'with{len(option)}'
        run_tool(
            *('test', config, checkpoint, '--data-root', shapes, '--work-dir', folder),
            *(*option, '--cfg-options', *IN_PROCESS),
        )
        found.append(metrics_of(folder)['aAcc'])
    assert found[0] != found[1]


def test_resume_goes_on_where_it_stopped(tmp_path, shapes) -> None:
    common = ['--data-root', shapes, '--work-dir', tmp_path, '--cfg-options', *IN_PROCESS]
    run_tool('train', DETECTION, *common, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9')
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert content['meta']['iter'] == 1
    # In the format of before torch 1.6, and with what mmengine would run when it resumes.
    content['meta']['config'] = f"gpu_ids = [0]\nopen({str(tmp_path / 'harm')!r}, 'w')\n"
    path = tmp_path / 'epoch_1.pth'
    torch.save(content, path, _use_new_zipfile_serialization=False)
    (tmp_path / 'epoch_1.pth.sha256').unlink()
    run_tool(
        *('train', DETECTION, '--resume', path, *common),
        *('train_cfg.max_epochs=2', 'train_cfg.val_interval=9'),
    )
    assert not (tmp_path / 'harm').exists()
    resumed = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert resumed['meta']['iter'] == 2
    assert len(resumed['message_hub']['log_scalars']['train/loss'].data[0]) == 2
    assert 'RetinaNet' in resumed['message_hub']['runtime_info']['cfg']


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path, shapes) -> None:
    """Of an older version, too, which wrote no manifest."""
    common = ['--data-root', shapes, '--work-dir', tmp_path, '--cfg-options', *IN_PROCESS]
    epochs = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=9']
    run_tool('train', DETECTION, *common, *epochs)
    (tmp_path / 'epoch_1.pth.sha256').unlink()
    os.truncate(tmp_path / 'epoch_2.pth', 1000)
    (log,) = tmp_path.glob('*/*.log')
    log.unlink()
    run_tool('train', DETECTION, '--resume', *common, *epochs)
    (log,) = tmp_path.glob('*/*.log')
    assert 'passed over: epoch_2.pth is truncated or no checkpoint' in log.read_text()
    assert f"resuming from '{tmp_path}/epoch_1.pth'" in log.read_text()
    assert find_damage(tmp_path / 'epoch_2.pth') is None


@TASKS
def test_pretrained_starts_from_the_file(tmp_path, shapes, config) -> None:
    checkpoint = tmp_path / 'untrained.pth'
    model = save_untrained(config, checkpoint)
    schedule = {
        DETECTION: ['train_cfg.max_epochs=1', 'train_cfg.val_interval=9'],
        SEGMENTATION: [
            'train_cfg.max_iters=1',
            'train_cfg.val_interval=9',
            'default_hooks.checkpoint.interval=1',
        ],
    }[config]
    run_tool(
        *('train', config, '--pretrained', checkpoint),
        *('--data-root', shapes, '--work-dir', tmp_path, '--cfg-options', *IN_PROCESS, *schedule),
        *('optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.weight_decay=0'),
    )
    trained = torch.load((tmp_path / 'last_checkpoint').read_text(), weights_only=False)
    for name, value in model.backbone.named_parameters():
        assert torch.equal(trained['state_dict'][f'backbone.{name}'], value), name


def test_batch_that_is_not_the_recipes_is_said(tmp_path, shapes) -> None:
    run_tool(
        *('train', DETECTION, '--data-root', shapes, '--work-dir', tmp_path, '--cfg-options'),
        *(*IN_PROCESS, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9'),
        'auto_scale_lr.base_batch_size=16',
    )
    (log,) = tmp_path.glob('*/*.log')
    assert "the total batch is 4, the recipe's 16: lr 0.0005 instead of 0.002" in log.read_text()


@pytest.mark.parametrize('backend', ['auto', 'chunked'])
def test_the_log_says_which_attention_auto_took(tmp_path, shapes, backend) -> None:
    backends._log_once.cache_clear()
    checkpoint = tmp_path / 'untrained.pth'
    save_untrained(SEGMENTATION, checkpoint)
    run_tool(
        *('test', SEGMENTATION, checkpoint, '--data-root', shapes, '--work-dir', tmp_path),
        *('--cfg-options', *IN_PROCESS, f'model.backbone.attention_backend={backend}'),
    )
    (log,) = tmp_path.glob('*/*.log')
    said = log.read_text().count("routed attention: 'auto' takes backend 'c")
    assert said == (backend == 'auto')


def test_the_checkpoint_given_is_tested_though_the_config_resumes(tmp_path, shapes) -> None:
    """Every config that a resumed run dumps into its work dir has ``resume = True``."""
    checkpoint = tmp_path / 'given.pth'
    save_untrained(SEGMENTATION, checkpoint)
    (tmp_path / 'last_checkpoint').write_text('/no/such/checkpoint.pth')
    run_tool(
        *('test', SEGMENTATION, checkpoint, '--data-root', shapes, '--work-dir', tmp_path),
        *('--cfg-options', *IN_PROCESS, 'resume=True'),
    )
    assert metrics_of(tmp_path)['aAcc'] >= 0
