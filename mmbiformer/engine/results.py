"""Running a detector, and writing what it finds in COCO's result format."""

import os
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmbiformer.errors import UserError

from .data import iter_datasets
from .runs import build_tester


@dataclass
class Results:
    """Files of one test run.

    Attributes:
        annotations (str): The ground truth, a COCO annotation file.
        detections (dict[str, str]): 'bbox' and 'segm', as the config judges them -> file.
        images (str): Folder of the images.
        classes (tuple[str]): Of the config, which may be fewer than the file has.
    """

    annotations: str
    detections: dict[str, str]
    images: str
    classes: tuple[str, ...]


def write_results(
    cfg: Config, checkpoint: str, prefix: str | Path, iou_type: str | None = None
) -> Results:
    """Run a detector on the test images of its config.

    Args:
        cfg (Config): From :func:`load_config`; changed in place.
        checkpoint (str): Checkpoint of the whole model.
        iou_type (str, optional): 'bbox' or 'segm', which the config must judge.
        prefix (str | Path): The files are named ``<prefix>.bbox.json`` and ``<prefix>.segm.json``.

    Raises:
        UserError: If the config does not judge by COCO's metric, or data or the checkpoint do not
            fit; see :func:`build_tester`.
    """
    evaluator = _coco_evaluator(cfg)
    metrics = evaluator.get('metric', 'bbox')
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if not {'bbox', 'segm'} & set(metrics):
        raise UserError(
            f"the config's metric is {' and '.join(metrics)}, and neither bbox nor segm: add one "
            'to test_evaluator'
        )
    if iou_type and iou_type not in metrics:
        raise UserError(
            f"the config's metric is {' and '.join(metrics)}, not {iou_type}: "
            'add it to test_evaluator'
        )
    dataset = next(iter_datasets(cfg, 'test'))
    root = dataset.get('data_root') or ''
    folder = dataset.get('data_prefix', {}).get('img', '')
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    # Written under another name first: a file that is there is whole.
    unfinished = f'{prefix}.unfinished'
    evaluator.update(format_only=True, outfile_prefix=unfinished)
    cfg.test_evaluator = evaluator
    tester = build_tester(cfg, checkpoint)
    tester.test()
    detections = {}
    for metric in ('bbox', 'segm'):  # mmdet writes boxes whatever the config judges
        written = Path(f'{unfinished}.{metric}.json')
        if metric not in metrics:
            written.unlink(missing_ok=True)
        elif not written.is_file():
            raise UserError(
                f"the config's metric {metric} needs masks, and the detector predicts none: "
                'take it from test_evaluator'
            )
        else:
            detections[metric] = f'{prefix}.{metric}.json'
            os.replace(written, detections[metric])
    return Results(
        annotations=evaluator.get('ann_file') or os.path.join(root, dataset['ann_file']),
        detections=detections,
        images=os.path.join(root, folder),
        classes=tuple(tester.test_dataloader.dataset.metainfo['classes']),
    )


def _coco_evaluator(cfg: Config) -> ConfigDict:
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        kind = evaluator.get('type')  # a name, or the class itself in a pure Python config
        name = kind if isinstance(kind, str) else kind.__name__
        if name.rpartition('.')[2] in ('CocoMetric', 'SizeCocoMetric'):
            return evaluator
    raise UserError(
        'the config has no CocoMetric among its test_evaluator, which detections in COCO format '
        'come from: add one'
    )
