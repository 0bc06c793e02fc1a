"""Out of memory: one line that says what to change, with what the config has now."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.runner import Runner

from mmbiformer.errors import UserError

from .parts import iter_datasets, type_name

# What torch, CUDA, numpy and the operating system say.
OF_THE_DEVICE = ('out of memory', 'CUBLAS_STATUS_ALLOC_FAILED')
OF_THE_HOST = ("can't allocate memory", 'Cannot allocate memory', 'Unable to allocate')
OF_SHARED_MEMORY = ('Bus error', 'shared memory(shm)', 'unable to write to file </torch_')
OF_A_WORKER = ('killed by signal: Killed',)
WAIT = 0.5
SIZES = ('crop_size', 'scale', 'img_scale')


class SafeRunner(Runner):
    """mmengine's Runner, in which out of memory is a UserError."""

    def train(self) -> object:
        """Train; see :meth:`Runner.train`."""
        with memory_explained(self.cfg, 'train'):
            return super().train()

    def test(self) -> dict:
        """Test; see :meth:`Runner.test`."""
        with memory_explained(self.cfg, 'test'):
            return super().test()


@contextmanager
def memory_explained(cfg: Config, split: str) -> Iterator[None]:
    """Within the block, out of memory of any kind becomes a UserError.

    Args:
        cfg (Config): What can be changed.
        split (str): 'train' or 'test': what is running.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        if isinstance(error, ConnectionError | EOFError):
            # One that loads data has gone: torch says how in a moment, when it gets SIGCHLD.
            try:
                time.sleep(WAIT)
            except RuntimeError as reason:
                error = reason
        if line := explain(error, cfg, split):
            raise UserError(line) from error
        raise


def explain(error: BaseException, cfg: Config, split: str) -> str | None:
    """What has run out and what to change; None where an error is of another kind."""
    # torch puts what killed a worker behind the error that says that one is gone.
    text = f'{error}\n{error.__cause__ or ""}'
    loader = f'{split}_dataloader'
    options = cfg.get(loader) or {}
    batch = f'{loader}.batch_size ({options.get("batch_size")} now)'
    workers = f'{loader}.num_workers ({options.get("num_workers", 0)} now)'
    if any(x in text for x in OF_A_WORKER):
        what = 'a process that loads data was killed, by the system if memory ran out'
        return f'{what}: lower {workers} or {batch}, or free memory'
    if any(x in text for x in OF_SHARED_MEMORY):
        return (
            f'shared memory ran out, by which processes that load data hand it over ({_shm()}): '
            f'enlarge it (docker run --shm-size=8g), lower {workers} or {batch}'
        )
    on_host = isinstance(error, MemoryError) or any(x in text for x in OF_THE_HOST)
    if not on_host and not any(x in text for x in OF_THE_DEVICE):
        return None
    line = next((x.strip() for x in text.splitlines() if x.strip()), type(error).__name__)
    changes = [f'lower {batch}', *_smaller_images(cfg, split)]
    if split == 'train':
        changes += _cheaper_training(cfg, on_host)
    if on_host and 'DataLoader worker' in text:
        changes.append(f'lower {workers}')
        line = 'in a process that loads data'
    where = 'memory of this machine' if on_host else 'memory of the accelerator'
    return f'out of the {where} ({line[:200]}): {", ".join(changes)}'


def _cheaper_training(cfg: Config, on_host: bool) -> list[str]:
    changes = []
    is_amp = type_name(cfg.get('optim_wrapper') or {}) == 'AmpOptimWrapper'
    if not on_host and not is_amp:
        changes.append('take --amp (not taken now)')
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    if str(backbone.get('type')).startswith('mmbiformer.'):
        with_cp = backbone.get('with_cp', False)
        if not with_cp:
            changes.append('set model.backbone.with_cp=True (False now)')
    return changes


def _smaller_images(cfg: Config, split: str) -> list[str]:
    """The first size that a step of the pipeline has."""
    for dataset in iter_datasets(cfg, split):
        for step in dataset.get('pipeline') or ():
            for key in SIZES:
                if size := step.get(key):
                    return [f'take smaller images ({type_name(step)}.{key}={size} now)']
    return []


def _shm() -> str:
    try:
        disk = os.statvfs('/dev/shm')
    except OSError:
        return 'no /dev/shm here'
    sizes = [x * disk.f_frsize / 1e6 for x in (disk.f_bavail, disk.f_blocks)]
    return '{:,.0f} of {:,.0f} MB of /dev/shm are free'.format(*sizes)
