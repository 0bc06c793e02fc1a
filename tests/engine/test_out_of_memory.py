"""Out of memory: what to change, with what the config has now."""

import errno
import os
import signal

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from mmbiformer.engine.memory import explain, memory_explained
from mmbiformer.errors import UserError

CONFIG = Config(
    dict(
        model=dict(backbone=dict(type='mmbiformer.BiFormer', arch='s')),
        optim_wrapper=dict(type='OptimWrapper'),
        train_dataloader=dict(
            batch_size=16,
            num_workers=4,
            dataset=dict(
                type='RepeatDataset',
                dataset=dict(pipeline=[dict(type='Load'), dict(type='Resize', scale=(1333, 800))]),
            ),
        ),
        test_dataloader=dict(batch_size=3, dataset=dict(pipeline=[])),
    )
)
GPU = (
    'CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.8 GiB of '
    'which 2.00 GiB is free.'
)


def test_on_a_gpu():
    line = explain(torch.OutOfMemoryError(GPU), CONFIG, 'train')
    assert line == (
        f'out of the memory of the accelerator ({GPU[:200]}): lower train_dataloader.batch_size '
        '(16 now), take smaller images (Resize.scale=(1333, 800) now), take --amp (not taken '
        'now), set model.backbone.with_cp=True (False now)'
    )


def test_what_is_done_already_is_not_said():
    cfg = Config(CONFIG.to_dict())
    cfg.model.backbone.with_cp = True
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    line = explain(RuntimeError('CUDA error: out of memory'), cfg, 'train')
    assert 'with_cp' not in line and '--amp' not in line
    line = explain(RuntimeError(GPU), CONFIG, 'test')
    assert line.endswith(': lower test_dataloader.batch_size (3 now)')


def test_of_the_machine_as_torch_and_numpy_say_it():
    said = r'^out of the memory of this machine \(.*with_cp=True'
    with pytest.raises(UserError, match=said), memory_explained(CONFIG, 'train'):
        torch.empty(1 << 60)
    numpy = MemoryError(
        'Unable to allocate 8.00 EiB for an array with shape (1152921504606846976,)'
    )
    assert 'memory of this machine (Unable' in explain(numpy, CONFIG, 'train')
    assert '--amp' not in explain(numpy, CONFIG, 'train')
    fork = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    assert 'memory of this machine' in explain(fork, CONFIG, 'train')


class Fatal(Dataset):
    """Data at whose third item something happens."""

    def __init__(self, what) -> None:
        self.what = what

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 2:
            self.what()
        return index


@pytest.mark.parametrize(
    ('what', 'said'),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            r'was killed, by the system if memory ran out: lower train_dataloader\.num_workers',
        ),
        (
            lambda: os.kill(os.getpid(), signal.SIGBUS),
            r'shared memory ran out, .* MB of /dev/shm are free\): enlarge it \(docker',
        ),
        (
            lambda: torch.empty(1 << 60),
            r'this machine \(in a process that loads data\): .* lower train_dataloader\.num_w',
        ),
    ],
    ids=['killed', 'bus error', 'allocation'],
)
def test_in_a_process_that_loads_data(what, said):
    with pytest.raises(UserError, match=said), memory_explained(CONFIG, 'train'):
        for _ in DataLoader(Fatal(what), batch_size=1, num_workers=1):
            pass


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('out of resource: shared memory, Required: 300000'),
        ValueError('out of memory'),
        OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
    ],
    ids=repr,
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, memory_explained(CONFIG, 'train'):
        raise error
    assert caught.value is error
