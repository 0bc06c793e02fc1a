"""Work folders as mmengine leaves them, with what a test says was logged."""

import json
from pathlib import Path

from toolbox import CONFIGS

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
STAMPS = '20260101_100000', '20260102_100000', '20260103_100000'


def training_row(step: int, **values: float) -> dict:
    """A line of the log of a training."""
    row = dict(lr=0.1, data_time=0.1, loss=1 / step, time=0.5, epoch=step // 100 + 1, iter=step)
    return {**row, **values, 'step': step}


def write_start(
    folder: Path, stamp: str = STAMPS[0], rows=(), *, end='', config='', notes=None, tested=None
) -> Path:
    """One start in a work folder: rows of its log and what may follow the last, lines that the
    config ends with, its notes, and the metrics of a test."""
    start = folder / stamp
    (start / 'vis_data').mkdir(parents=True)
    (start / 'vis_data/config.py').write_text(f"_base_ = '{DETECTION}'\n{config}\n")
    if rows or end:
        text = ''.join(f'{json.dumps(row)}\n' for row in rows) + end
        (start / f'vis_data/{stamp}.json').write_text(text)
    if notes is not None:
        (start / 'run_notes.json').write_text(json.dumps(notes))
    if tested is not None:
        (start / f'{stamp}.json').write_text(json.dumps(tested))
    return start
