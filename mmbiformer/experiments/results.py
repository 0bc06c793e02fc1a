"""Running a detector, and writing what it finds in COCO's result format."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmbiformer.engine import build_tester
from mmbiformer.engine.parts import iter_datasets, list_evaluators, type_name
from mmbiformer.errors import UserError
from mmbiformer.files import whole_or_absent


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
        prefix (str | Path): The files are named ``<prefix>.bbox.json`` and ``<prefix>.segm.json``.
        iou_type (str, optional): 'bbox' or 'segm', which the config must judge.

    Raises:
        UserError: If the config does not judge by COCO's metric, or data or the checkpoint do not
            fit; see :func:`build_tester`.
    """
    evaluators = list_evaluators(cfg, 'test')
    judges = [x for x in evaluators if type_name(x) in ('CocoMetric', 'SizeCocoMetric')]
    if not judges:
        raise UserError(
            'the config has no CocoMetric among its test_evaluator, which detections in COCO '
            'format come from: add one'
        )
    evaluator = judges[0]
    metrics = evaluator.get('metric', 'bbox')
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    detections = {x: f'{prefix}.{x}.json' for x in ('bbox', 'segm') if x in metrics}
    if not detections:
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
    with ExitStack() as stack:
        unfinished = {
            metric: stack.enter_context(whole_or_absent(path))
            for metric, path in detections.items()
        }
        # mmdet writes all its files under one prefix, and boxes whatever the config judges: here
        # to the scratch folder of the first file, with which the others go.
        scratch = next(iter(unfinished.values())).parent
        evaluator.update(format_only=True, outfile_prefix=str(scratch / Path(prefix).name))
        cfg.test_evaluator = evaluator
        tester = build_tester(cfg, checkpoint)
        tester.test()
        for metric, path in unfinished.items():
            written = scratch / path.name
            if not written.is_file():
                raise UserError(
                    f"the config's metric {metric} needs masks, and the detector predicts none: "
                    'take it from test_evaluator'
                )
            os.replace(written, path)
    return Results(
        annotations=evaluator.get('ann_file') or os.path.join(root, dataset['ann_file']),
        detections=detections,
        images=os.path.join(root, folder),
        classes=tuple(tester.test_dataloader.dataset.metainfo['classes']),
    )
