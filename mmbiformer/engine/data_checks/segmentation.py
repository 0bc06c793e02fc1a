"""Checks of mmseg's data sets of images and label maps."""

import os

from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, DefaultScope

from mmbiformer.datasets.image_files import Labels
from mmbiformer.errors import UserError

from .checked import Checked
from .files import File
from .findings import find
from .images import list_folder


def reads_label_maps(kind: type | None) -> bool:
    """Whether a dataset class pairs images and label maps as mmseg's BaseSegDataset does."""
    from mmseg.datasets import BaseSegDataset

    return isinstance(kind, type) and issubclass(kind, BaseSegDataset)


def check_pairs(dataset: ConfigDict, root: str, classes: list[str] | None) -> Checked:
    """Check that there are images and that each has its label map, by listings alone.

    Raises:
        UserError: If the dataset cannot be built.
    """
    folder = os.path.join(root, (dataset.get('data_prefix') or {}).get('img_path') or '')
    checked = Checked(folder, classes)
    if dataset.get('test_mode') and not classes:
        remedy = 'set metainfo.classes of the dataset'
        checked.findings = find(folder, 'lacking for evaluation', ['names of classes'], remedy)
        return checked
    built = _build(dataset)
    files, maps = [], []
    # mmseg maps the labels of its own classes to those that a config names.
    num_classes = len(built.metainfo.get('label_map') or classes or ())
    labels = Labels(num_classes, built.reduce_zero_label) if num_classes else None
    for info in built.load_data_list():
        files.append(File(info['img_path'], None, info.get('seg_map_path'), labels))
        maps += [info['seg_map_path']] if 'seg_map_path' in info else []
    if not files:
        checked.findings = find(
            folder,
            'no images that end in',
            [built.img_suffix],
            'set img_suffix and data_prefix of the dataset, or --data-root',
        )
        return checked
    for what, key, paths in (
        ('images', 'img_suffix', [x.path for x in files]),
        ('label maps', 'seg_map_suffix', maps),
    ):
        missing = _missing(paths)
        checked.findings += find(
            folder,
            f'missing {what}',
            missing,
            f'all are missing: set {key} and data_prefix of the dataset'
            if len(missing) == len(paths)
            else 'restore them, or remove the other of each pair',
        )
    checked.files = files
    checked.counts = dict(images=len(files), label_maps=len(maps), classes=len(classes or ()))
    return checked


def _build(dataset: ConfigDict) -> object:
    options = {**dataset, 'pipeline': [], 'lazy_init': True}
    with DefaultScope.overwrite_default_scope('mmseg'):
        try:
            return DATASETS.build(options)
        except Exception as error:  # of many kinds, by dataset
            reason = ' '.join(str(error).split())[:300]
            raise UserError(f'dataset {options["type"]} cannot be built: {reason}') from error


def _missing(paths: list[str]) -> list[str]:
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        head, tail = os.path.split(path)
        if head not in listings:
            listings[head] = list_folder(head)
        if tail not in listings[head]:
            missing.append(path)
    return missing
