"""What the metrics that mm logs are about: all objects, those of a size, or those of a class."""

import math
import re
from collections.abc import Iterable

from .records import RunRecord

# mmdet's AP by size, and ours; the numbers are IoUs.
OF_SIZE = re.compile(
    r'(.*_mAP|.*pixel_recall|.*class_recall|.*segments_found)_(?!50$|75$|copypaste$)(.+)'
)
OF_CLASS = re.compile(r'(?:.*/)?(?:(bbox|segm)_)?(.+)_precision')
NOT_SHOWN = re.compile(r'.*(num_objects_.*|_precision_.*|_mAP_copypaste)')
MAIN = 'mAP', 'mIoU', 'top1'
COCO_SIZES = dict(s='small', m='medium', l='large')

# Score -> size or class -> value.
Scores = dict[str, dict[str, float]]


def known(value: object) -> float | None:
    """A metric's value; None for nan, and for COCO's -1, where there are no objects."""
    return None if value is None or math.isnan(value) or value == -1 else value


def overall_names(runs: Iterable[RunRecord]) -> list[str]:
    """Names of any run's metrics that are about all sizes and classes, the main ones first."""
    names = dict.fromkeys(
        name for run in runs for metrics in _all_metrics(run) for name in metrics
    )
    chosen = [
        name
        for name in names
        if not any(x.fullmatch(name) for x in (OF_SIZE, OF_CLASS, NOT_SHOWN))
    ]
    return sorted(chosen, key=lambda name: not name.endswith(MAIN))


def by_size(run: RunRecord) -> Scores:
    """Scores of the last evaluation in each size, small ones first as they are logged."""
    scores = {}
    for name, value in run.final_metrics.items():
        if match := OF_SIZE.fullmatch(name):
            kind, size = match.groups()
            size = COCO_SIZES.get(size, size)
            scores.setdefault(kind, {})[size] = known(value)
    return scores


def by_class(run: RunRecord) -> Scores:
    """Scores of the last evaluation for each class, where it logged them."""
    scores = {}
    for name, value in run.final_metrics.items():
        if match := OF_CLASS.fullmatch(name):
            kind, category = match.groups()
            scores.setdefault(f'{kind or "bbox"} AP', {})[category] = known(value)
    for category, cells in run.classes.items():
        for kind, value in cells.items():
            scores.setdefault(kind, {})[category] = known(value)
    return scores


def highest(run: RunRecord, name: str) -> tuple[float, int] | None:
    """The highest value of a metric over the validations, and the first step that had it."""
    values = [(known(x.metrics.get(name)), -x.step) for x in run.validations]
    value, step = max((x for x in values if x[0] is not None), default=(None, 0))
    return None if value is None else (value, -step)


def _all_metrics(run: RunRecord) -> list[dict[str, float]]:
    return [x.metrics for x in run.validations] + [x.tested for x in run.tests]
