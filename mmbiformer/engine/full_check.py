"""The full check of a config's data: every image and label map is opened."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from tqdm import tqdm

from mmbiformer.files import whole_or_absent

from .data import SPLITS, check_datasets
from .data_checks.checked import Checked
from .data_checks.files import file_findings, open_all
from .data_checks.findings import Finding, find

# What the makers of COCO and ADE20K say, by the name of the annotation file or folder.
OFFICIAL = {
    'instances_train2017.json': dict(images=118_287, annotations=860_001, categories=80),
    'instances_val2017.json': dict(images=5_000, annotations=36_781, categories=80),
    'images/training': dict(images=20_210, label_maps=20_210, classes=150),
    'images/validation': dict(images=2_000, label_maps=2_000, classes=150),
}


def check_all(cfg: Config, workers: int) -> dict:
    """Check all data of a config, and open every image and label map.

    Args:
        cfg (Config): From :func:`load_config`.
        workers (int): Threads that open images.

    Returns:
        dict: For JSON: errors and notices of each data set, and what it holds beside the official
        numbers; ``ok`` where there is no error.
    """
    start = time.perf_counter()
    datasets, seen = [], {}
    for checked in check_datasets(cfg, SPLITS, whole=True):
        progress = tqdm(
            open_all(checked.files, workers),
            total=len(checked.files),
            desc=f'{checked.split}, {os.path.basename(checked.place)}',
            unit='image',
            mininterval=0.5,
        )
        findings = checked.findings + file_findings(progress, checked.place)
        findings += _compare_splits(checked, seen)
        datasets.append(_describe(checked, findings))
    return dict(
        ok=not any(x['errors'] for x in datasets),
        datasets=datasets,
        seconds=round(time.perf_counter() - start, 1),
    )


def _compare_splits(checked: Checked, seen: dict[str, str]) -> list[Finding]:
    """Images of a data set for training must not be in one for evaluation."""
    both = [x.path for x in checked.files if seen.setdefault(x.path, checked.split) == 'train']
    if checked.split == 'train':
        return []
    return find(
        checked.place,
        'images that training sees as well',
        both,
        'results on them say little',
        is_error=False,
    )


def _describe(checked: Checked, findings: list[Finding]) -> dict:
    official = next((x for key, x in OFFICIAL.items() if checked.place.endswith(key)), {})
    key = 'classes' if 'classes' in official else 'categories'
    if checked.counts.get(key) != official.get(key):  # another data set of the same layout
        official = {}
    return dict(
        split=checked.split,
        place=checked.place,
        classes=checked.classes,
        counts=checked.counts,
        official=official,
        opened=len(checked.files),
        errors=[x.record() for x in findings if x.is_error],
        notices=[x.record() for x in findings if not x.is_error],
    )


def report_lines(report: dict) -> Iterator[str]:
    """The report as text."""
    for dataset in report['datasets']:
        official = dataset['official']
        counts = [
            f'{count:,} {key}' + (f' (officially {official[key]:,})' if key in official else '')
            for key, count in dataset['counts'].items()
            if isinstance(count, int)
        ]
        yield f"{dataset['split']}: '{dataset['place']}': {', '.join(counts) or 'not counted'}"
        for kind, word in (('errors', 'error'), ('notices', 'notice')):
            yield from (f'  {word}: {finding["line"]}' for finding in dataset[kind])


def write_report(report: dict, path: str | Path) -> None:
    """Write the report as JSON."""
    with whole_or_absent(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=2), encoding='utf-8')
