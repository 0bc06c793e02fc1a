"""Train, evaluate, draw and report a small model on the generated shapes, from one call."""

import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmbiformer.datasets.image_files import list_images
from mmbiformer.datasets.shapes import CLASSES, make_shapes
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.engine import build_tester, build_trainer, load_config
from mmbiformer.engine.device import runs_on_cpu_with_bf16_units
from mmbiformer.engine.parts import iter_datasets
from mmbiformer.evaluation.classification import confusion_text
from mmbiformer.evaluation.detection.size_tables import report_text
from mmbiformer.evaluation.judge_files import judge_files, judge_folders
from mmbiformer.evaluation.report.report_files import write_report, write_segment_report
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_tables import segment_report_text
from mmbiformer.evaluation.sizes import size_ranges
from mmbiformer.files import whole_or_absent
from mmbiformer.run_report import write_run_report
from mmbiformer.tables import MISSING
from mmbiformer.visualization.explorer import open_model, write_explorers

# What the table shows -> the metric's name.
DETECTION_COLUMNS = {
    'AP': 'coco/bbox_mAP',
    **{f'AP{x}': f'coco/bbox_mAP_{x}' for x in ('50', '75', 's', 'm', 'l')},
}
SEGMENTATION_COLUMNS = {'mIoU': 'mIoU', 'mAcc': 'mAcc', 'aAcc': 'aAcc'}
CLASSIFICATION_COLUMNS = {'top-1': 'accuracy/top1'}
NUM_EXPLORED = 3  # images, where no report names the worst


class _Judged(NamedTuple):
    """An evaluation: its metrics, tables of more, a file of all, and routing explorers."""

    metrics: dict[str, float]
    text: str
    file: Path
    explorers: Path


def quickstart(config: str, data_root: str | None = None) -> str:
    """Make the data set, train, evaluate, draw ground truth beside predictions, report.

    A CPU with units for bfloat16 trains in mixed precision.

    Args:
        config (str): A config for the shapes.
        data_root (str, optional): Where the shapes are, or will be made. Defaults to the config's.

    Returns:
        str: The report's tables, those of the metrics, and where the rest lies.
    """
    cfg = load_config(config, data_root=data_root)
    data_root = next(iter_datasets(cfg, 'train')).data_root.rstrip('/')
    make_data, judge, columns = {
        'mmdet': (make_shapes, _judge_detector, DETECTION_COLUMNS),
        'mmseg': (make_shapes, _judge_segmenter, SEGMENTATION_COLUMNS),
        'mmpretrain': (make_single_shapes, _judge_classifier, CLASSIFICATION_COLUMNS),
    }[cfg.default_scope]
    make_data(data_root)
    runner = build_trainer(cfg, amp=runs_on_cpu_with_bf16_units())
    start = time.perf_counter()
    runner.train()
    minutes = (time.perf_counter() - start) / 60

    work_dir = Path(cfg.work_dir)
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    pictures = work_dir / 'pictures'
    cfg = load_config(config, data_root=data_root)
    judged = judge(cfg, checkpoint, str(pictures), Path(data_root))
    kind = 'predictions' if judged.file.suffix == '.pkl' else 'report'
    run_report, notices = write_run_report([work_dir])
    return (
        f'{judged.text}\n\n'
        f'{format_metrics(columns, judged.metrics)}\n\n'
        f'training took {minutes:.1f} minutes\n'
        f'checkpoint    {os.path.relpath(checkpoint)}\n'
        f'pictures      {pictures}\n'
        f'{kind:<13} {os.path.relpath(judged.file)}\n'
        f'run report    {os.path.relpath(run_report)}\n'
        f'explorers     {os.path.relpath(judged.explorers)}' + ''.join(f'\n{x}' for x in notices)
    )


def _judge_detector(cfg: Config, checkpoint: str, pictures: str, data_root: Path) -> _Judged:
    """Evaluate, draw, and report AP across object sizes: metrics, tables, and the page."""
    detections = Path(cfg.work_dir, 'validation.bbox.json')
    with whole_or_absent(detections) as unfinished:
        cfg.test_evaluator.outfile_prefix = str(unfinished.with_name('validation'))
        metrics = build_tester(cfg, checkpoint, show_dir=pictures).test()
    report = judge_files(
        cfg.test_evaluator.ann_file,
        {Path(cfg.work_dir).name: detections},
        size_ranges(),
        iou_type='bbox',
        may_be_empty=True,
        bootstrap=Bootstrap(),
    )
    folder = data_root / 'images/validation'
    worst = {x.file_name for y in report.models[0].worst_images for x in y}
    images = [folder / name for name in sorted(worst)] or list_images(folder)[:NUM_EXPLORED]
    explorers = _explore(cfg, checkpoint, images, cfg.test_evaluator.ann_file)
    out_dir = Path(cfg.work_dir, 'size_ap')
    written = write_report(report, out_dir, image_dir=folder, explorer_dir=explorers)
    return _Judged(metrics, report_text(report), written['html'], explorers)


def _judge_segmenter(cfg: Config, checkpoint: str, pictures: str, data_root: Path) -> _Judged:
    """Evaluate, draw, and report by the size of segments: metrics, tables, and the page."""
    predictions = Path(cfg.work_dir, 'predictions')
    metrics = build_tester(cfg, checkpoint, show_dir=pictures, out=str(predictions)).test()
    report = judge_folders(
        data_root / 'annotations/validation',
        {Path(cfg.work_dir).name: predictions},
        ('background', *CLASSES),
        size_ranges(),
        reduce_zero_label=True,
        bootstrap=Bootstrap(),
    )
    written = write_segment_report(report, Path(cfg.work_dir, 'segment_sizes'))
    images = list_images(data_root / 'images/validation')[:NUM_EXPLORED]
    explorers = _explore(cfg, checkpoint, images, str(data_root / 'annotations/validation'))
    return _Judged(metrics, segment_report_text(report), written['html'], explorers)


def _judge_classifier(cfg: Config, checkpoint: str, pictures: str, data_root: Path) -> _Judged:
    """Evaluate, draw, and count what is taken for what: metrics, a table, and the predictions."""
    predictions = Path(cfg.work_dir, 'predictions.pkl')
    with whole_or_absent(predictions) as unfinished:
        tester = build_tester(cfg, checkpoint, show_dir=pictures, out=str(unfinished))
        metrics = tester.test()
    with predictions.open('rb') as file:  # which this process has just written
        results = pickle.load(file)
    classes = tester.test_dataloader.dataset.metainfo['classes']
    images = list_images(data_root / 'validation' / classes[0])[:NUM_EXPLORED]
    explorers = _explore(cfg, checkpoint, images)
    return _Judged(metrics, confusion_text(results, classes), predictions, explorers)


def _explore(
    cfg: Config, checkpoint: str, images: Sequence[Path], annotations: str | None = None
) -> Path:
    """Write routing explorers of some images; the folder of them."""
    folder = Path(cfg.work_dir, 'explorers')
    model = open_model(cfg.filename, checkpoint)
    for _ in write_explorers(images, [model], folder, annotations=annotations):
        pass
    return folder


def format_metrics(columns: dict[str, str], metrics: dict[str, float]) -> str:
    """Two lines: the columns' heads and, below, their metrics; 'n/a' where a metric is missing.

    COCO's metric reports -1 for a size bin without objects: that is no value either.
    """
    values = [metrics.get(name, -1) for name in columns.values()]
    cells = [MISSING if value < 0 else f'{value:.3g}' for value in values]
    return '\n'.join(''.join(f'{cell:>8}' for cell in row) for row in (columns, cells))
