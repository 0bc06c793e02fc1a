"""Checking images for classification: a folder for each class, or a file of names and labels."""

import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file

from mmbiformer.errors import UserError

from .parts import iter_datasets, type_name


def data_folders(dataset: ConfigDict) -> list[str]:
    """The folders below its data root that a dataset reads from, whatever its mm package."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or {}
    return [prefix] if isinstance(prefix, str) else [path for path in prefix.values() if path]


def reads_class_folders(dataset: ConfigDict) -> bool:
    """Whether mmpretrain's CustomDataset finds the images of a dataset, whatever it is called."""
    from mmpretrain.datasets import CustomDataset

    # A dataset that reads its files in a way of its own may have no such folders.
    own = getattr(_dataset_class(dataset), 'load_data_list', None)
    return own is CustomDataset.load_data_list


def _dataset_class(dataset: ConfigDict) -> type | None:
    from mmpretrain.registry import DATASETS

    kind = dataset['type']  # a name, or the class itself in a pure Python config
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def check_class_folders(cfg: Config, dataset: ConfigDict, root: str) -> list[str] | None:
    """Check that labels mean the classes of the config, and that its head has as many.

    mmpretrain counts the folders in alphabetical order, whatever order the config gives their
    names in, and looks at no label before it is used.

    Returns:
        list[str], optional: The folders whose order gives the labels, where they do.

    Raises:
        UserError: If folders, labels, the dataset's classes and the head's do not fit together.
    """
    if not dataset.get('with_label', True) or dataset.get('split') == 'test':
        return None
    metainfo = {**_dataset_class(dataset).METAINFO, **(dataset.get('metainfo') or {})}
    classes = dataset.get('classes') or metainfo.get('classes')
    classes = read_lines(classes) if isinstance(classes, str) else classes
    folder = os.path.join(root, *data_folders(dataset))
    annotations = _annotation_file(dataset, root)
    names = None
    if annotations is None:
        names = _list_class_folders(folder, dataset)
        _check_names(folder, names, list(classes or names))
        classes = classes or names
    num_classes = (cfg.model.get('head') or {}).get('num_classes')
    if classes and num_classes and len(classes) != num_classes:
        raise UserError(
            f"model.head.num_classes={num_classes}, and the data in '{folder}' have "
            f'{len(classes)} classes: make them equal'
        )
    if annotations is not None:
        _check_labels(annotations, num_classes or len(classes or ()))
    return names


def check_num_classes(cfg: Config) -> None:
    """Check that all parts of a classification config agree on the number of classes.

    Raises:
        UserError: If two of them differ.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    parts = {'model.head': cfg.model.get('head') or {}, 'data_preprocessor': preprocessor}
    for dataset in iter_datasets(cfg, 'train'):
        for step in dataset.get('pipeline', ()):
            if type_name(step) == 'LoadLabelMap':
                parts['LoadLabelMap of the pipeline'] = step
    counts = {name: part['num_classes'] for name, part in parts.items() if part.get('num_classes')}
    if len(set(counts.values())) > 1:
        listed = ', '.join(f'{count} of {name}' for name, count in counts.items())
        raise UserError(f'num_classes differ ({listed}): make them equal')


def read_lines(path: str) -> list[str]:
    """The lines of a text file, a list of names for example.

    Raises:
        UserError: If the file is missing or no text.
    """
    try:
        return list_from_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is no text file that can be read: {error}") from error


def _annotation_file(dataset: ConfigDict, root: str) -> str | None:
    """The file of names and labels; that of ImageNet counts where it is there."""
    if dataset.get('ann_file'):
        return os.path.join(root, dataset['ann_file'])
    split_file = os.path.join(root, 'meta', f'{dataset.get("split")}.txt')
    return split_file if dataset.get('split') and os.path.isfile(split_file) else None


def list_images(dataset: ConfigDict, folder: str) -> Iterator[str]:
    """The images in the folders of classes."""
    endings = _endings(dataset)
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if parent != folder:
            yield from (os.path.join(parent, x) for x in files if x.lower().endswith(endings))


def _endings(dataset: ConfigDict) -> tuple[str, ...]:
    from mmpretrain.datasets import ImageNet

    return tuple(dataset.get('extensions') or ImageNet.IMG_EXTENSIONS)


def _list_class_folders(folder: str, dataset: ConfigDict) -> list[str]:
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    endings = _endings(dataset)
    if not any(list_images(dataset, folder)):
        raise UserError(
            f"'{folder}' has no images in folders of classes ({', '.join(endings)}): make one for "
            'each class, or give the dataset an ann_file'
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
    for number, line in enumerate(read_lines(annotations), 1):
        _, _, label = line.strip().rpartition(' ')
        if not label.isdecimal() or (num_classes and int(label) >= num_classes):
            raise UserError(
                f"'{annotations}', line {number}: '{line.strip()[:80]}' must be the name of an "
                f'image and a label from 0 to {max(num_classes - 1, 0)}'
            )
