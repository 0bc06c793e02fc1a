"""Pointing a config at a data folder, and checking the folder before a run starts."""

import json
import mmap
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmbiformer.checkpoints import may_unpickle
from mmbiformer.errors import UserError

from .class_folders import (
    check_class_folders,
    check_num_classes,
    data_folders,
    read_lines,
    reads_class_folders,
)
from .parts import iter_datasets, list_evaluators

SPLITS = ('train', 'val', 'test')
_RUN = ('.pkl', '.pickle', '.yaml', '.yml')


def set_data_root(cfg: Config, data_root: str) -> None:
    """Replace the data root of every dataset, and of the annotation files that metrics read.

    Args:
        cfg (Config): Changed in place.
        data_root (str): Folder of the layout that the config's datasets expect.
    """
    datasets = [dataset for split in SPLITS for dataset in iter_datasets(cfg, split)]
    old_roots = {dataset['data_root'] for dataset in datasets if dataset.get('data_root')}
    for dataset in datasets:
        dataset['data_root'] = data_root
    for split in SPLITS:
        for evaluator in list_evaluators(cfg, split):
            for key, value in evaluator.items():
                if isinstance(value, str) and (path := _path_below(value, old_roots)):
                    evaluator[key] = os.path.join(data_root, path)
    cfg.data_root = data_root


def _path_below(path: str, roots: set[str]) -> str | None:
    """The rest of a path behind the longest of the roots that holds it."""
    for root in sorted(roots, key=len, reverse=True):
        folder = root.rstrip('/') + '/'
        if path.startswith(folder):
            return path[len(folder) :]
    return None


def check_data(cfg: Config, splits: Iterable[str]) -> None:
    """Check that the data of these splits are there and of the config's classes.

    Raises:
        UserError: If a folder or annotation file is missing or empty, or class names differ.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        check_num_classes(cfg)
    datasets = [dataset for split in splits for dataset in iter_datasets(cfg, split)]
    labels: dict[str, list[str]] = {}  # data folder -> the folders of classes in it
    for dataset in datasets:
        _check_annotations_do_not_run(dataset)
        root = dataset.get('data_root') or ''
        # On a file server of mmengine's, looking costs too much.
        if dataset.get('backend_args') or '://' in root:
            continue
        if scope == 'mmpretrain' and not reads_class_folders(dataset):
            continue
        _check_folders(dataset, root)
        if scope == 'mmdet':
            _check_categories(dataset, root)
        elif scope == 'mmpretrain' and (names := check_class_folders(cfg, dataset, root)):
            labels[os.path.join(root, *data_folders(dataset))] = names
    for (first, names), (second, others) in pairwise(labels.items()):
        if names != others:
            differing = ', '.join(sorted(set(names) ^ set(others)))
            raise UserError(
                f"'{first}' and '{second}' do not have the same folders of classes, whose order "
                f'gives the labels (in one alone: {differing}): make them equal'
            )


def _check_annotations_do_not_run(dataset: ConfigDict) -> None:
    """mmengine unpickles files of these endings, and makes any object that a YAML file names."""
    for key in ('ann_file', 'proposal_file'):
        file = dataset.get(key)
        if isinstance(file, str) and file.endswith(_RUN) and not may_unpickle(file):
            raise UserError(
                f"{key} '{file}' can run code when mm reads it: convert it to JSON (SECURITY.md)"
            )


def _check_folders(dataset: ConfigDict, root: str) -> None:
    folders, file = data_folders(dataset), dataset.get('ann_file')
    needed = [*folders, file] if file else folders
    layout = f'the config expects {", ".join(needed)} in it; point it elsewhere with --data-root'
    if root and not os.path.isdir(root):
        raise UserError(f"data root '{root}' not found: {layout}")
    missing = [
        x for x in folders if not Path(root, x).is_dir() or not any(Path(root, x).iterdir())
    ]
    if file and not Path(root, file).is_file():
        missing.append(file)
    if missing:
        raise UserError(
            f"data root '{root}' lacks {', '.join(missing)} (or empty, or a file for a folder, or "
            f'a folder for a file): {layout}'
        )


def _check_categories(dataset: ConfigDict, root: str) -> None:
    """mmdet itself drops unknown names in silence and shifts the labels of those behind them."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    # A dataset that reads its file in a way of its own may take the classes from elsewhere.
    kind = dataset['type']  # a name, or the class itself in a pure Python config
    dataset_class = DATASETS.get(kind) if isinstance(kind, str) else kind
    if getattr(dataset_class, 'load_data_list', None) is not CocoDataset.load_data_list:
        return
    annotations = os.path.join(root, dataset['ann_file'])
    classes = {**dataset_class.METAINFO, **(dataset.get('metainfo') or {})}.get('classes', ())
    classes = read_lines(classes) if isinstance(classes, str) else list(classes)
    names = read_category_names(annotations)
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise UserError(
            f"classes {', '.join(unknown)} of the config do not occur in '{annotations}', which "
            f'has {", ".join(names)}: set metainfo.classes of the datasets'
        )
    in_order = [name for name in names if name in classes]
    if classes and in_order != classes:
        raise UserError(
            f"the config's classes are in another order than in '{annotations}', and labels "
            f'follow the file: set metainfo.classes of the datasets to {", ".join(in_order)}'
        )


def read_category_names(annotations: str) -> list[str]:
    """The category names of a COCO annotation file, in its order.

    Reads the one list and not the file: COCO's training annotations are 450 MB.

    Raises:
        UserError: If the file is no COCO annotation file.
    """
    error = UserError(
        f"'{annotations}' is not a COCO annotation file (no list of categories with names): "
        'it may be truncated; restore it'
    )
    if not os.path.getsize(annotations):
        raise error
    key = b'"categories"'
    with (
        open(annotations, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        start = text.rfind(key) + len(key)
        if start < len(key):
            raise error
        # The list may stand before the annotations: most often the first megabyte holds it.
        for stop in (start + 2**20, len(text)):
            rest = text[start:stop].decode(errors='replace').lstrip().removeprefix(':').lstrip()
            try:
                categories, _ = json.JSONDecoder().raw_decode(rest)
                return [category['name'] for category in categories]
            except (ValueError, TypeError, KeyError):
                continue
    raise error
