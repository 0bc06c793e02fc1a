"""Wrong input ends in one line that names the thing and the remedy, and in exit code 2."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from toolbox import CONFIGS, IN_PROCESS, ROOT, run_tool, save_untrained

from mmbiformer.checkpoints import list_nonfinite, load_file
from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.hooks import CrashSafeCheckpointHook

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTATION = CONFIGS / 'fpn_biformer_quickstart_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', num_train=2, num_val=2)


@pytest.fixture
def error(capsys, tmp_path, shapes):
    """Run a tool that must fail; returns its one line."""

    def run(tool: str, *args: object, root: object = None, options: tuple = ()) -> str:
        with pytest.raises(SystemExit) as stop:
            run_tool(
                tool,
                *args,
                *('--data-root', root or shapes, '--work-dir', tmp_path),
                *('--cfg-options', *IN_PROCESS, *options),
            )
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if 'error:' in line]
        return line

    return run


def test_config_not_found(error) -> None:
    assert 'did you mean' in error('train', CONFIGS / 'retinanet_biformer-s_fpn_1x_cco.py')


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('arch=m', "arch='m' is unknown: choose from tiny, small, base"),
        ('out_indices=[3,1]', 'out_indices=(3, 1) must be ascending stage numbers from 0 to 3'),
    ],
)
def test_value_that_the_model_cannot_have(error, option, said) -> None:
    assert said in error('train', DETECTION, options=(f'model.backbone.{option}',))


def test_attention_that_no_slot_has(error) -> None:
    config = CONFIGS.parent / 'ablation/retinanet_shifted-window_shapes.py'
    line = error('train', config, options=('model.backbone.attention=shifted',))
    assert "attention='shifted' is unknown: choose from sliding_window, shifted_window, " in line


def test_data_root_not_found(error) -> None:
    line = error('train', DETECTION, root='/no/such/folder')
    assert "'/no/such/folder' not found" in line and '--data-root' in line


def test_data_root_lacks_a_folder(error, tmp_path) -> None:
    (tmp_path / 'images/training').mkdir(parents=True)
    (tmp_path / 'images/training/1.jpg').touch()
    assert 'lacks annotations/training' in error('train', SEGMENTATION, root=tmp_path)


def test_class_names_that_do_not_occur(error, shapes, tmp_path) -> None:
    root = tmp_path / 'renamed'
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').symlink_to(shapes / 'images')
    for path in (shapes / 'annotations').glob('*.json'):
        content = json.loads(path.read_text())
        content['categories'][0]['name'] = 'disc'
        (root / 'annotations' / path.name).write_text(json.dumps(content))
    line = error('train', DETECTION, root=root)
    assert 'lacks: circle' in line and 'disc' in line and 'metainfo.classes' in line


@pytest.mark.parametrize('option', ['--resume', '--pretrained'])
def test_checkpoint_to_train_from_not_found(error, option) -> None:
    assert "checkpoint 'no.pth' not found" in error('train', DETECTION, option, 'no.pth')


def test_nothing_to_resume(error) -> None:
    assert 'nothing to resume' in error('train', DETECTION, '--resume')


def test_last_checkpoint_is_gone(error, tmp_path) -> None:
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    line = error('train', DETECTION, '--resume')
    assert 'nothing to resume' in line and 'epoch_1.pth, which last_checkpoint names, is' in line


def test_a_config_that_resumes_nothing(error) -> None:
    """It would train afresh with a line in the log."""
    assert 'nothing to resume' in error('train', DETECTION, options=['resume=True'])


@pytest.mark.parametrize('option', ['--resume', '--pretrained', None])
def test_a_checkpoint_that_is_not_what_its_manifest_says(error, tmp_path, option) -> None:
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {}}, path)
    path.with_name('epoch_1.pth.sha256').write_text(f'{"0" * 64}  epoch_1.pth')
    line = error('train', DETECTION, option, path) if option else error('test', DETECTION, path)
    assert "epoch_1.pth' is damaged: its SHA-256 is not the one in epoch_1.pth.sha256" in line


@pytest.fixture(scope='module')
def spoilt(tmp_path_factory):
    """Weights of a model of which one is not finite, with what a run has besides."""
    path = tmp_path_factory.mktemp('weights') / 'spoilt.pth'
    weights = save_untrained(DETECTION, path).state_dict()
    weights['backbone.norm3.bias'][0] = float('nan')
    rest = {'message_hub': {}, 'meta': {}, 'optimizer': {}}
    torch.save({'state_dict': weights, **rest}, path)
    return path


@pytest.mark.parametrize('way', ['test', '--pretrained', '--resume', 'load_from'])
def test_weights_that_are_not_finite(error, spoilt, way) -> None:
    if way == 'test':
        line = error('test', DETECTION, spoilt)
    elif way.startswith('--'):
        line = error('train', DETECTION, way, spoilt)
    else:
        line = error('train', DETECTION, options=[f'load_from={spoilt}'])
    assert f"{spoilt}' holds weights that are not finite: backbone.norm3.bias (nan)" in line


def test_sizes_of_a_model_whose_weights_are_not_finite(spoilt, shapes, tmp_path, capsys) -> None:
    args = ['--config', DETECTION, '--checkpoint', spoilt, '--data-root', shapes]
    with pytest.raises(SystemExit) as stop:
        run_tool('size_ap', *args, '--out-dir', tmp_path)
    assert stop.value.code == 2
    assert 'holds weights that are not finite: backbone.norm3.bias' in capsys.readouterr().err


def test_a_learning_rate_that_ends_in_nan(error, tmp_path) -> None:
    """It trained on for ever, with exit code 0."""
    options = ['optim_wrapper.optimizer.lr=1e6', 'optim_wrapper.clip_grad=None']
    options += ['train_cfg.max_epochs=9', 'train_cfg.val_interval=9', 'param_scheduler=None']
    line = error('train', DETECTION, options=options)
    assert 'stopped before the step of the optimizer' in line and '.jpg' in line
    assert 'learning rate, 1e+06 now' in line
    for path in tmp_path.glob('*.pth'):
        assert not list_nonfinite(load_file(path)['state_dict'].items())


def test_a_full_disk(error, monkeypatch, tmp_path) -> None:
    """Checkpoints apart, which say more: as at logs."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'scalars.json')

    monkeypatch.setattr(CrashSafeCheckpointHook, 'before_train', full)
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    line = error('train', DETECTION, options=options)
    assert 'the disk is full' in line and 'scalars.json' in line and '--resume' in line


def test_checkpoint_to_test_not_found(error) -> None:
    assert "checkpoint 'no.pth' not found" in error('test', DETECTION, 'no.pth')


@pytest.mark.parametrize('task', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_checkpoint_of_another_backbone(error, tmp_path, task) -> None:
    weights = {'backbone.layer1.0.conv1.weight': torch.zeros(1), 'bbox_head.x': torch.zeros(1)}
    torch.save({'state_dict': weights}, tmp_path / 'resnet.pth')
    line = error('test', task, tmp_path / 'resnet.pth')
    assert 'another architecture' in line and 'layer1.0.conv1.weight' in line


def test_checkpoint_of_another_head(error, tmp_path) -> None:
    save_untrained(SEGMENTATION, tmp_path / 'segmenter.pth')
    line = error('test', DETECTION, tmp_path / 'segmenter.pth')
    assert 'segmenter.pth' in line and 'bbox_head' in line and 'decode_head' in line


def test_file_that_is_no_checkpoint(error, tmp_path) -> None:
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    line = error('test', DETECTION, tmp_path / 'text.pth')
    assert 'text.pth' in line


def test_pretrained_of_another_architecture(error, tmp_path) -> None:
    torch.save({'model': {'conv1.weight': torch.zeros(1)}}, tmp_path / 'resnet.pth')
    line = error('train', DETECTION, '--pretrained', tmp_path / 'resnet.pth')
    assert 'another architecture' in line and 'conv1.weight' in line


@pytest.mark.parametrize('content', [{'state_dict': {}}, None], ids=['weights', 'text'])
def test_resuming_what_no_run_wrote(error, tmp_path, content) -> None:
    path = tmp_path / 'weights.pth'
    if content is None:
        path.write_text('not a checkpoint')
    else:
        torch.save(content, path)
    line = error('train', DETECTION, '--resume', path)
    assert 'weights.pth' in line and ('meta, optimizer' in line or 'cannot be read' in line)


def test_resuming_a_run_of_another_head(error, tmp_path) -> None:
    path = tmp_path / 'segmenter.pth'
    model = save_untrained(SEGMENTATION, path)
    rest = {'message_hub': {}, 'meta': {}, 'optimizer': {}}
    torch.save({'state_dict': model.state_dict(), **rest}, path)
    assert 'bbox_head' in error('train', DETECTION, '--resume', path)


def test_launchers_that_cannot_start_here(error, monkeypatch) -> None:
    monkeypatch.delenv('RANK', raising=False)
    assert 'torchrun' in error('train', DETECTION, '--launcher', 'pytorch')


def test_options_that_do_not_fit(error, tmp_path) -> None:
    checkpoint = tmp_path / 'any.pth'
    checkpoint.touch()
    assert '--tta needs' in error('test', DETECTION, checkpoint, '--tta')
    assert 'name it *.pkl' in error('test', DETECTION, checkpoint, '--out', 'results.json')


def test_no_traceback_from_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, 'tools/train.py', 'no.py'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: config 'no.py' not found")
    assert 'Traceback' not in done.stderr
