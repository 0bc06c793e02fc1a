"""Checking images for classification: a folder for each class, or a file of names and labels."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file

from mmbiformer.errors import UserError


def data_folders(dataset: ConfigDict) -> list[str]:
    """The folders below its data root that a dataset reads from, whatever its mm package."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or {}
    return [prefix] if isinstance(prefix, str) else [path for path in prefix.values() if path]


def check_class_folders(cfg: Config, dataset: ConfigDict, root: str) -> None:
    """Check that labels mean the classes of the config, and that its head has as many.

    mmpretrain counts the folders in alphabetical order, whatever order the config gives their
    names in, and looks at no label before it is used.

    Raises:
        UserError: If folders, labels, the dataset's classes and the head's do not fit together.
    """
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.registry import DATASETS

    kind = dataset['type']  # a name, or the class itself in a pure Python config
    dataset_class = DATASETS.get(kind) if isinstance(kind, str) else kind
    # A dataset that reads its files in a way of its own may take the classes from elsewhere.
    if getattr(dataset_class, 'load_data_list', None) is not CustomDataset.load_data_list:
        return
    if not dataset.get('with_label', True) or dataset.get('split') == 'test':
        return
    classes = {**dataset_class.METAINFO, **(dataset.get('metainfo') or {})}.get('classes')
    classes = dataset.get('classes') or classes
    classes = list_from_file(classes) if isinstance(classes, str) else classes
    folder = os.path.join(root, *data_folders(dataset))
    annotations = _annotation_file(dataset, root)
    if annotations is None:
        names = _list_class_folders(folder)
        _check_names(folder, names, list(classes or names))
        classes = classes or names
    num_classes = cfg.model.get('head', {}).get('num_classes')
    if classes and num_classes and len(classes) != num_classes:
        raise UserError(
            f"model.head.num_classes={num_classes}, and the data in '{folder}' have "
            f'{len(classes)} classes: make them equal'
        )
    if annotations is not None:
        _check_labels(annotations, num_classes or len(classes or ()))


def _annotation_file(dataset: ConfigDict, root: str) -> str | None:
    """The file of names and labels; that of ImageNet counts where it is there."""
    if dataset.get('ann_file'):
        return os.path.join(root, dataset['ann_file'])
    split_file = os.path.join(root, 'meta', f'{dataset.get("split")}.txt')
    return split_file if dataset.get('split') and os.path.isfile(split_file) else None


def _list_class_folders(folder: str) -> list[str]:
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    if not any(any(Path(folder, name).iterdir()) for name in names):
        raise UserError(
            f"'{folder}' has no images in folders of classes: make one for each class, or give "
            'the dataset an ann_file'
        )
    return names


def _check_names(folder: str, names: list[str], classes: list[str]) -> None:
    if len(names) != len(classes):
        raise UserError(
            f"'{folder}' has {len(names)} folders, and the config {len(classes)} classes: set "
            'metainfo.classes of the datasets, or point elsewhere with --data-root'
        )
    # ImageNet's folders have other names than its classes: then their order cannot be wrong.
    if set(names) & set(classes) and names != classes:
        raise UserError(
            f"the folders of '{folder}', whose alphabetical order gives the labels, are "
            f'{", ".join(names)}, and the classes of the config {", ".join(classes)}: set '
            'metainfo.classes of the datasets to the folders'
        )


def _check_labels(annotations: str, num_classes: int) -> None:
    for number, line in enumerate(list_from_file(annotations), 1):
        _, _, label = line.strip().rpartition(' ')
        if not label.isdecimal() or (num_classes and int(label) >= num_classes):
            raise UserError(
                f"'{annotations}', line {number}: '{line.strip()[:80]}' must be the name of an "
                f'image and a label from 0 to {max(num_classes - 1, 0)}'
            )
