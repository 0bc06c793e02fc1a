"""Train, evaluate and draw a small model on the generated shapes, from one call."""

import os
import time
from pathlib import Path

from mmbiformer.datasets.shapes import make_shapes

from .config import load_config
from .runs import build_tester, build_trainer

# What the table shows -> the metric's name.
DETECTION_COLUMNS = {
    'AP': 'coco/bbox_mAP',
    'AP50': 'coco/bbox_mAP_50',
    'AP75': 'coco/bbox_mAP_75',
    'APs': 'coco/bbox_mAP_s',
    'APm': 'coco/bbox_mAP_m',
    'APl': 'coco/bbox_mAP_l',
}
SEGMENTATION_COLUMNS = {'mIoU': 'mIoU', 'mAcc': 'mAcc', 'aAcc': 'aAcc'}


def quickstart(config: str, data_root: str = 'data/shapes') -> str:
    """Make the data set, train, evaluate, draw ground truth beside predictions.

    Args:
        config (str): A config for the shapes.
        data_root (str): Where the shapes are, or will be made.

    Returns:
        str: The table of metrics, and where the rest lies.
    """
    make_shapes(data_root)
    cfg = load_config(config, data_root=data_root)
    runner = build_trainer(cfg)
    start = time.perf_counter()
    runner.train()
    minutes = (time.perf_counter() - start) / 60

    work_dir = Path(cfg.work_dir)
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    pictures = work_dir / 'pictures'
    tester = build_tester(
        load_config(config, data_root=data_root), checkpoint, show_dir=str(pictures)
    )
    metrics = tester.test()
    columns = SEGMENTATION_COLUMNS if cfg.default_scope == 'mmseg' else DETECTION_COLUMNS
    return (
        f'{format_table(columns, metrics)}\n\n'
        f'training took {minutes:.1f} minutes\n'
        f'checkpoint    {os.path.relpath(checkpoint)}\n'
        f'pictures      {pictures}'
    )


def format_table(columns: dict[str, str], metrics: dict[str, float]) -> str:
    """Two lines: the columns' heads and, below, their metrics; 'n/a' where a metric is missing.

    COCO's metric reports -1 for a size bin without objects: that is no value either.
    """
    values = [metrics.get(name, -1) for name in columns.values()]
    cells = ['n/a' if value < 0 else f'{value:.3g}' for value in values]
    return '\n'.join(''.join(f'{cell:>8}' for cell in row) for row in (columns, cells))
