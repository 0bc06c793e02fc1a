"""Pointing a config at a data folder, and checking the folder before a run starts."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmbiformer.checkpoints import may_unpickle
from mmbiformer.errors import UserError

from .class_folders import (
    check_class_folders,
    check_num_classes,
    data_folders,
    list_images,
    reads_class_folders,
)
from .data_checks.checked import Checked
from .data_checks.classes import check_heads, classes_of, dataset_class
from .data_checks.detection import check_coco, reads_coco
from .data_checks.files import File, file_findings, open_sample
from .data_checks.findings import Finding, find, refusal, refuse_errors
from .data_checks.segmentation import check_pairs, reads_label_maps
from .loading import read_max_skipped
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


def check_data(cfg: Config, splits: Iterable[str]) -> list[str]:
    """Check what folders, annotation files and a few images tell of the data of these splits.

    Returns:
        list[str]: What is worth saying and keeps no run from starting.

    Raises:
        UserError: If data are missing or wrong, or classes of data and model differ.
    """
    if os.environ.get('LOCAL_RANK', '0') != '0':
        return []  # one process of each machine is enough: COCO's takes memory and seconds
    splits, max_skipped = tuple(splits), read_max_skipped(cfg)
    notices = []
    for checked in check_datasets(cfg, splits):
        notices += refuse_errors(checked.findings)
        may_skip = max_skipped if checked.split == 'train' else 0
        opened = open_sample(checked.files)
        notices += refuse_errors(file_findings(opened, checked.place, may_skip))
    return notices + refuse_errors(_check_evaluators(cfg, splits))


def check_datasets(cfg: Config, splits: Iterable[str], whole: bool = False) -> Iterator[Checked]:
    """Check each data set of these splits, without opening images.

    Args:
        cfg (Config): With datasets that are pointed at their data.
        splits (Iterable[str]): 'train', 'val' or 'test'.
        whole (bool): Also what takes long.

    Yields:
        Checked: What was found; where a data set cannot be checked further, an error is.

    Raises:
        UserError: If parts of a classification config differ in their number of classes.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        check_num_classes(cfg)
    first: Checked | None = None
    seen = []
    for split in splits:
        for dataset in iter_datasets(cfg, split):
            _check_annotations_do_not_run(dataset)
            root = dataset.get('data_root') or ''
            # On a file server of mmengine's, looking costs too much.
            if dataset.get('backend_args') or '://' in root or dataset in seen:
                continue
            seen.append(dataset)
            try:
                checked = _check_dataset(cfg, dataset, root, scope, whole)
            except UserError as error:
                checked = Checked(root, findings=[refusal(error)])
            if checked is None:
                continue
            checked.split = split
            if first and checked.classes and first.classes:
                checked.findings += _compare_classes(first, checked)
            first = first or checked
            yield checked


def _check_dataset(
    cfg: Config, dataset: ConfigDict, root: str, scope: str, whole: bool
) -> Checked | None:
    """Check one data set; None for one that is read in a way of its own."""
    if scope == 'mmpretrain':
        if not reads_class_folders(dataset):
            return None
        _check_folders(dataset, root)
        folder = os.path.join(root, *data_folders(dataset))
        names = check_class_folders(cfg, dataset, root)
        # Listing a million takes mmpretrain itself long enough; without labels folders may be any.
        files = [File(x) for x in list_images(dataset, folder)] if whole and names else []
        return Checked(folder, names, files=files, counts=dict(images=len(files)))
    _check_folders(dataset, root)
    kind = dataset_class(dataset, scope)
    classes = classes_of(dataset, scope)
    if scope == 'mmdet' and reads_coco(kind):
        checked = check_coco(dataset, root, classes or [], whole)
    elif scope == 'mmseg' and reads_label_maps(kind):
        checked = check_pairs(dataset, root, classes)
    else:
        checked = Checked(root, classes)
    if classes:
        checked.findings = check_heads(cfg, classes, checked.place) + checked.findings
    return checked


def _check_evaluators(cfg: Config, splits: Iterable[str]) -> list[Finding]:
    """Metrics judge by the annotation file of their data set."""
    findings = []
    for split in splits:
        own = {
            os.path.realpath(os.path.join(x.get('data_root') or '', x.get('ann_file') or ''))
            for x in iter_datasets(cfg, split)
        }
        for evaluator in list_evaluators(cfg, split):
            path = evaluator.get('ann_file')
            if not isinstance(path, str) or '://' in path or evaluator.get('backend_args'):
                continue
            remedy = f'set {split}_evaluator.ann_file to that of the dataset'
            missing = [] if os.path.isfile(path) else [f'{split}_evaluator.ann_file']
            findings += find(path, 'missing', missing, remedy)
            if not missing and os.path.realpath(path) not in own:
                what = f'not the annotation file of the {split} dataset'
                findings += find(path, what, ['ann_file'], remedy, is_error=False)
    return findings


def _compare_classes(first: Checked, other: Checked) -> list[Finding]:
    """The classes of all data sets are the same, in the same order."""
    pairs = zip(first.classes, other.classes, strict=False)
    differing = [(i, *names) for i, names in enumerate(pairs) if len(set(names)) > 1]
    shorter, longer = sorted((first.classes, other.classes), key=len)
    differing += [(i, longer[i], 'none') for i in range(len(shorter), len(longer))]
    return find(
        other.place,
        f"classes that are not those of '{first.place}', in their order",
        differing,
        'make them equal',
        lambda x: f"label {x[0]} is '{x[1]}' and '{x[2]}'",
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
