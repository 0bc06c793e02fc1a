"""What a run's log says in single numbers: how far it is, how fast, in how much memory."""

from dataclasses import dataclass
from statistics import median

from mmbiformer.engine.parts import type_name

from .records import RunRecord

NO_LOG = 'no curves, as visualizer.vis_backends of the config has no LocalVisBackend'


@dataclass
class Speed:
    """Of a training, from what it logged.

    Attributes:
        seconds (float): Of an iteration, the median of the log's lines.
        waiting (float): Share of them that waited for data.
        images (float | None): Per second over all processes; None where their number is unknown.
        total (float): Seconds that all iterations took.
    """

    seconds: float
    waiting: float
    images: float | None
    total: float


def measure_speed(run: RunRecord) -> Speed | None:
    """None before the first line of the log."""
    rows = [row for row in run.training if 'time' in row]
    if not rows:
        return None
    seconds = median(row['time'] for row in rows)
    waiting = median(row['data_time'] / row['time'] for row in rows)
    before = [0, *(row['step'] for row in rows)]
    total = sum(row['time'] * (row['step'] - x) for row, x in zip(rows, before, strict=False))
    batch = run.cfg.train_dataloader.get('batch_size')
    notes = training_notes(run)
    images = batch * notes['processes'] / seconds if batch and notes else None
    return Speed(seconds, waiting, images, total)


def training_notes(run: RunRecord) -> dict:
    """What the latest start of the training left; empty of a program that leaves nothing."""
    notes = (x.notes for x in reversed(run.starts) if x.notes.get('split') == 'train')
    return next(notes, {})


def peak_memory(run: RunRecord) -> int | None:
    """MB of the GPU; None where it is not logged, as on a CPU."""
    return max((row['memory'] for row in run.training if 'memory' in row), default=None)


def describe_progress(run: RunRecord) -> str:
    """As 'epoch 3 of 12, iteration 600'."""
    if not run.training:
        return 'no training' if _has_local_log(run) else NO_LOG
    last, plan = run.training[-1], run.cfg.get('train_cfg') or {}
    iteration = f'iteration {last["step"]:,}'
    if limit := plan.get('max_iters'):
        return f'{iteration} of {limit:,}'
    epoch = f'epoch {last["epoch"]}' if 'epoch' in last else ''
    limit = plan.get('max_epochs')
    return f'{epoch} of {limit}, {iteration}' if epoch and limit else epoch or iteration


def _has_local_log(run: RunRecord) -> bool:
    backends = run.cfg.get('visualizer', {}).get('vis_backends') or []
    return any(type_name(x) == 'LocalVisBackend' for x in backends)


def describe_duration(seconds: float) -> str:
    """As '2 h 05 min', or '40 s'."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{minutes // 60} h {minutes % 60:02} min' if minutes >= 60 else f'{minutes} min'


def flatten(part: object, path: str = '') -> dict[str, str]:
    """All values of a config by their dotted names."""
    if isinstance(part, dict) and part:
        items = part.items()
    elif isinstance(part, list | tuple) and any(isinstance(x, dict) for x in part):
        items = enumerate(part)
    else:
        return {path: repr(part)}
    flat = {}
    for key, child in items:
        flat |= flatten(child, f'{path}.{key}' if path else str(key))
    return flat
