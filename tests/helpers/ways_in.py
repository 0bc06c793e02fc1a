"""Every way by which a checkpoint gets into a process, short of the tools."""

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import Tensor, nn

import mmbiformer.checkpoints as checkpoints
from mmbiformer.backbones.convert import convert_checkpoint


class Toy(BaseModel):
    """A model of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return dict(loss=self.layer(inputs).square().mean())


def toy_runner(folder: Path, **options: object) -> Runner:
    """A Runner that trains for two iterations and saves a checkpoint after each."""
    return Runner(
        Toy(),
        str(folder),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 2, batch_size=1, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=False, max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1], by_epoch=False),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
            runtime_info=dict(type='RuntimeInfoHook'),
        ),
        custom_hooks=[dict(type='EMAHook')],
        experiment_name=f'toy of {folder}',
        log_level='ERROR',
        cfg=Config(dict(x=1)),
        **options,
    )


def save_toy(folder: Path) -> Path:
    """Train the toy; returns its last checkpoint."""
    toy_runner(folder).train()
    return folder / 'iter_2.pth'


def ways_in(folder: Path) -> dict[str, Callable[[Path], object]]:
    """name -> function of a file's path that has it loaded; folder is for runs."""
    runner = toy_runner(folder / 'run')
    runner.call_hook('before_run')

    def start(**state: object) -> Runner:
        runner._has_loaded, runner._resume, runner._load_from = False, False, None
        vars(runner).update(state)
        return runner

    def resume_latest(path: Path) -> None:
        (folder / 'run/last_checkpoint').write_text(str(path))
        start(_resume=True).load_or_resume()

    def infer(path: Path) -> None:
        from mmdet.apis import DetInferencer

        DetInferencer(weights=str(path), scope='mmdet', device='cpu')

    def initialise(path: Path, **options: str) -> None:
        init_cfg = dict(type='Pretrained', checkpoint=str(path), **options)
        BaseModule(init_cfg).init_weights()

    return {
        'load_file': checkpoints.load_file,
        'read_checkpoint': checkpoints.read_checkpoint,
        'CheckpointLoader': lambda x: CheckpointLoader.load_checkpoint(str(x), 'cpu'),
        'load_checkpoint': lambda x: load_checkpoint(nn.Linear(2, 1), str(x)),
        'init_cfg': initialise,
        'init_cfg with a prefix': lambda x: initialise(x, prefix='layer'),
        'load_from': lambda x: start(_load_from=str(x)).load_or_resume(),
        'resume': lambda x: start(_resume=True, _load_from=str(x)).load_or_resume(),
        'resume the latest': resume_latest,
        'inferencer': infer,
        'converter': lambda x: convert_checkpoint(x, folder / 'converted.pth'),
    }
