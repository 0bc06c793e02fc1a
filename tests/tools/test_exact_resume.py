"""A detector's training that is stopped in an epoch, and goes on with --resume, by the tools."""

import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from random_runs import Stopped, find_differences
from toolbox import CONFIGS, run_tool

from mmbiformer.datasets.shapes import make_shapes

CONFIG = f"""
_base_ = '{CONFIGS}/retinanet_biformer_quickstart_shapes.py'
model = dict(backbone=dict(drop_path_rate=0.5))
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(_delete_=True, type='LinearLR', by_epoch=False, begin=0, end=6)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2), logger=dict(interval=1))
custom_hooks = [dict(type='EMAHook')]
"""


@HOOKS.register_module(force=True)
class SignalAt(Hook):
    """Sends this process a SIGTERM in a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def load_last(work_dir: Path) -> dict:
    return torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)


def test_a_detector_that_was_stopped_is_the_one_that_was_not(tmp_path) -> None:
    """Flips, stochastic depth and averages; the stopped one loads in two processes, is told to end
    in the fifth step, which it finishes and saves, and later ends in the sixth unsaved."""
    shapes = make_shapes(tmp_path / 'shapes', num_train=8, num_val=1)
    config = tmp_path / 'config.py'
    common = (config, '--data-root', shapes, '--work-dir')
    config.write_text(CONFIG)
    run_tool('train', *common, tmp_path / 'whole')
    stopped = (*common, tmp_path / 'stopped', '--cfg-options', 'train_dataloader.num_workers=2')

    config.write_text(f"{CONFIG}custom_hooks.append(dict(type='SignalAt', step=4))\n")
    with pytest.raises(SystemExit) as stop:
        run_tool('train', *stopped)
    assert stop.value.code == 128 + signal.SIGTERM
    assert (tmp_path / 'stopped/stopped_iter_5.pth').is_file()
    config.write_text(f"{CONFIG}custom_hooks.append(dict(type='StopAt', step=7))\n")
    with pytest.raises(Stopped):
        run_tool('train', *stopped, '--resume')
    config.write_text(CONFIG)
    run_tool('train', *stopped, '--resume')
    whole, resumed = load_last(tmp_path / 'whole'), load_last(tmp_path / 'stopped')
    assert whole['meta']['iter'] == 8
    assert find_differences(whole, resumed) == []
    assert not (tmp_path / 'stopped/stopped_iter_5.pth').exists()
