"""A run of mmengine that trains a single weight matrix, in a fraction of a second."""

import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

HOOK = 'mmbiformer.CrashSafeCheckpointHook'
STOP_HOOK = 'mmbiformer.SafeStopHook'


@MODELS.register_module(force=True)
class TinyModel(BaseModel):
    """A linear layer that is to give ones."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, width)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.linear(torch.stack(inputs))
        return dict(loss=(out - 1).square().mean()) if mode == 'loss' else [out]


class TinyData(Dataset):
    """Four constant vectors."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(metainfo=dict(img_path=f'{index}.jpg'))
        return dict(inputs=torch.full((self.width,), 1.0 + index), data_samples=sample)


@METRICS.register_module(force=True)
class Growing:
    """Accuracies of which each is better than the one before."""

    dataset_meta = None
    count = 0

    def process(self, *_, **__) -> None:
        pass

    def evaluate(self, size: int) -> dict:
        Growing.count += 1
        return dict(acc=Growing.count, miou=Growing.count / 2)


def tiny_run(
    work_dir: Path, *, epochs: int = 3, width: int = 4, hooks=(), stop=None, **changes
) -> Runner:
    """A run of two steps an epoch; ``changes`` are for the checkpoint hook, ``stop`` for the one
    that stops, which is there if it is a dict."""
    hook = dict(type=HOOK, interval=1, max_keep_ckpts=2, save_best='acc', rule='greater')
    resume = changes.pop('resume', False)
    loader = dict(
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    data = dict(dataset=TinyData(width), **loader)
    return Runner(
        model=dict(type='TinyModel', width=width),
        work_dir=str(work_dir),
        train_dataloader={**data, 'collate_fn': dict(type='pseudo_collate')},
        val_dataloader={**data, 'collate_fn': dict(type='pseudo_collate')},
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        val_evaluator=[dict(type='Growing')],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        default_hooks={
            'checkpoint': {**hook, **changes},
            **({} if stop is None else {'stop': dict(type=STOP_HOOK, **stop)}),
        },
        custom_hooks=list(hooks),
        resume=resume,
        experiment_name=f'{time.time_ns()}',  # what runs of one name learn, they share
        log_level='WARNING',
        cfg=Config(dict()),
    )
