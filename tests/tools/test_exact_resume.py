"""A detector's training that is stopped in an epoch, and goes on with --resume, by the tools."""

from pathlib import Path

import pytest
import torch
from random_runs import Stopped, find_differences
from toolbox import CONFIGS, run_tool

from mmbiformer.datasets.shapes import make_shapes

CONFIG = f"""
_base_ = '{CONFIGS}/retinanet_biformer_quickstart_shapes.py'
model = dict(backbone=dict(drop_path_rate=0.5))
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(_delete_=True, type='LinearLR', by_epoch=False, begin=0, end=6)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1), logger=dict(interval=1))
custom_hooks = [dict(type='EMAHook')]
"""


def load_last(work_dir: Path) -> dict:
    return torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)


def test_a_detector_that_was_stopped_is_the_one_that_was_not(tmp_path) -> None:
    """Flips, stochastic depth and averages; the stopped one loads in two processes."""
    shapes = make_shapes(tmp_path / 'shapes', num_train=6, num_val=1)
    config = tmp_path / 'config.py'
    common = (config, '--data-root', shapes, '--work-dir')
    config.write_text(CONFIG)
    run_tool('train', *common, tmp_path / 'whole')
    workers = ('--cfg-options', 'train_dataloader.num_workers=2')
    config.write_text(f"{CONFIG}custom_hooks.append(dict(type='StopAt', step=4))\n")
    with pytest.raises(Stopped):
        run_tool('train', *common, tmp_path / 'stopped', *workers)
    config.write_text(CONFIG)
    run_tool('train', *common, tmp_path / 'stopped', '--resume', *workers)
    whole, resumed = load_last(tmp_path / 'whole'), load_last(tmp_path / 'stopped')
    assert whole['meta']['iter'] == 6
    assert find_differences(whole, resumed) == []
