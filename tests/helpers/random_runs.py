"""Runs of mmengine in which everything is random that can be, and how two of them differ.

As a command: two processes train together, whole, and stopped at a step and gone on with.
"""

import os
import random
import socket
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

NUM_IMAGES, BATCH_SIZE = 14, 2  # seven steps an epoch


@MODELS.register_module(force=True)
class RandomModel(BaseModel):
    """Dropout, statistics of a batch, and a size that is drawn anew every few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(8, 1)
        self.resizer = Resizer()

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(inputs)
        if mode == 'loss':
            return dict(loss=(self.head(self.layers(self.resizer(x))) - 1).square().mean())
        return [dict(out=float(out)) for out in self.head(self.layers(x))]


class Resizer(torch.nn.Module):
    """Keeps what it has drawn for three calls, as mmdet's BatchSyncRandomResize keeps a size."""

    def __init__(self) -> None:
        super().__init__()
        self._input_size, self.calls = None, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from mmengine.logging import MessageHub

        scale = self._input_size or (1, 1)
        if (MessageHub.get_current_instance().get_info('iter') + 1) % 3 == 0:
            self._input_size = (random.randint(2, 5), random.randint(2, 5))
        return x * scale[0] / scale[1]


class RandomData(Dataset):
    """Vectors to which all generators add."""

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> dict:
        noise = torch.rand(6) + random.random() + np.random.rand()
        return dict(inputs=torch.full((6,), index / NUM_IMAGES) + noise)


class FixedData(RandomData):
    """The vectors alone."""

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((6,), index / NUM_IMAGES))


@METRICS.register_module(force=True)
class MeanOutput(BaseMetric):
    """The mean of what the model gives."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [x['out'] for x in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(output=sum(results) / len(results))


class Stopped(Exception):
    """What a run ends by that is stopped on purpose."""


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Ends a run as abruptly as a kill: in the forward pass of a step, or in a validation."""

    priority = 'VERY_HIGH'

    def __init__(self, step: int = -1, validation: int = -1) -> None:
        self.step, self.validation = step, validation

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.step:
            raise Stopped

    def after_val_epoch(self, runner, metrics=None) -> None:
        if runner.iter == self.validation:
            raise Stopped


def random_run(
    work_dir: Path,
    *,
    by_epoch: bool,
    every: int | None = None,
    workers: int = 0,
    persistent: bool = False,
    sampler: str | None = None,
    stop: dict | None = None,
    **changes,
) -> Runner:
    """A run of 21 steps, that is three epochs, which validates every epoch or seven steps.

    Args:
        work_dir (Path): Its folder.
        by_epoch (bool): Whether its loop knows epochs.
        every (int, optional): After how many steps it saves, if not before each validation.
        workers (int): How many processes load.
        persistent (bool): Whether they live longer than an epoch.
        sampler (str, optional): Another one than the loop's usual one.
        stop (dict, optional): Arguments of :class:`StopAt`.
        changes: Arguments of Runner.
    """
    saving = dict(by_epoch=by_epoch, interval=1 if by_epoch else 7)
    if every:
        saving = dict(by_epoch=False, interval=every)
    hook = dict(type='mmbiformer.CrashSafeCheckpointHook', save_best='output', rule='less')
    sampler = sampler or ('DefaultSampler' if by_epoch else 'InfiniteSampler')
    loader = dict(batch_size=BATCH_SIZE, num_workers=workers, persistent_workers=persistent)
    train_cfg = dict(by_epoch=True, max_epochs=3)
    if not by_epoch:
        train_cfg = dict(by_epoch=False, max_iters=21, val_interval=7)
    hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
    if stop:
        hooks.append(dict(type='StopAt', **stop))
    schedulers = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10),
        dict(type='CosineAnnealingLR', T_max=21, by_epoch=False, begin=0, end=21),
    ]
    own = dict(
        model=dict(type='RandomModel'),
        train_dataloader=dict(
            dataset=RandomData(), sampler=dict(type=sampler, shuffle=True), **loader
        ),
        val_dataloader=dict(
            dataset=FixedData(), sampler=dict(type='DefaultSampler', shuffle=False), **loader
        ),
        train_cfg=train_cfg,
        val_cfg=dict(),
        val_evaluator=dict(type='MeanOutput'),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=schedulers,
        default_hooks=dict(
            checkpoint={**hook, **saving},
            exact_resume=dict(type='mmbiformer.ExactResumeHook'),
            logger=dict(type='LoggerHook', interval=2),
        ),
        custom_hooks=hooks,
        log_level='WARNING',
        cfg=Config(),
    )
    # What runs of one name learn, they share.
    name = f'{time.time_ns()}'
    return Runner(work_dir=str(work_dir), experiment_name=name, **{**own, **changes})


def run_pair(work_dir: Path, **options) -> None:
    """A run of two processes, forked from this one, which must have no threads."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    common = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank))
            code = 1
            try:
                # mmengine's launchers would ask for GPUs.
                torch.distributed.init_process_group('gloo')
                wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
                cfg = Config(dict(model_wrapper_cfg=wrapper))
                random_run(work_dir, launcher='pytorch', cfg=cfg, **options).train()
                code = 0
            except Stopped:
                code = 3
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    assert codes == {3 if 'stop' in options else 0}, codes


# What is no part of a run: when and where it ran, how long it took, its text. mmengine's version
# has the commit of the current folder in it.
APART = {
    *('meta.time', 'meta.experiment_name', 'meta.cfg', 'meta.mmengine_version'),
    *('message_hub.runtime_info.experiment_name', 'message_hub.runtime_info.cfg'),
    # What a run notes as it begins, and before each step; meta has what is done.
    *('message_hub.runtime_info.epoch', 'message_hub.runtime_info.iter'),
}


def find_differences(one: object, other: object, name: str = '') -> list[str]:
    """What differs, bit for bit, between two checkpoints, but for times and folders."""
    last = name.rpartition('.')[2]
    if name in APART or last in ('train/time', 'train/data_time', 'val/time', 'val/data_time'):
        return []
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [name]
    if isinstance(one, dict) and isinstance(other, dict):
        found = [f'{name}.{key}' for key in one.keys() ^ other.keys()]
        for key in one.keys() & other.keys():
            found += find_differences(one[key], other[key], f'{name}.{key}'.strip('.'))
        return found
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [name]
        pairs = zip(one, other, strict=True)
        return [x for i, p in enumerate(pairs) for x in find_differences(*p, f'{name}.{i}')]
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, other) else [name]
    if type(one).__name__ == 'HistoryBuffer':
        return find_differences(vars(one), vars(other), name)
    if isinstance(one, str) and isinstance(other, str):
        return [] if Path(one).name == Path(other).name else [name]
    return [] if one == other else [f'{name}: {one!r} and {other!r}']


if __name__ == '__main__':
    NUM_IMAGES = 28  # seven steps for each
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    options = dict(by_epoch=True, every=2, randomness=dict(seed=3))
    run_pair(folder / 'whole', **options)
    run_pair(folder / 'stopped', stop=dict(step=step), **options)
    run_pair(folder / 'stopped', resume=True, **options)
