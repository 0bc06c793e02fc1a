"""Checks of mmdet's data sets that read COCO annotation files."""

import os
from collections import Counter

from mmengine.config import ConfigDict

from ..parts import type_name
from .checked import Checked
from .classes import check_categories
from .coco_boxes import check_boxes, check_sizes
from .coco_files import check_ids, no_garbage_collection, read_coco
from .files import File
from .findings import Finding, find
from .images import check_file_names, check_presence
from .masks import check_masks


def reads_coco(kind: type | None) -> bool:
    """Whether a dataset class reads its files as mmdet's CocoDataset does."""
    from mmdet.datasets import CocoDataset

    # One that reads its file in a way of its own may take the classes from elsewhere.
    return getattr(kind, 'load_data_list', None) is CocoDataset.load_data_list


def check_coco(dataset: ConfigDict, root: str, classes: list[str], whole: bool) -> Checked:
    """Check an annotation file, and that its images are there.

    Args:
        dataset (ConfigDict): Of a config.
        root (str): Its data root.
        classes (list[str]): Of the dataset.
        whole (bool): Also what takes long: polygons of large files.

    Raises:
        UserError: If the file is no COCO annotation file.
    """
    path = os.path.join(root, dataset['ann_file'])
    with no_garbage_collection():
        return _check_content(dataset, root, classes, read_coco(path, whole), path, whole)


def _check_content(
    dataset: ConfigDict, root: str, classes: list[str], content: dict, path: str, whole: bool
) -> Checked:
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = os.path.join(root, prefix)
    images, records = content['images'], content['annotations']
    checked = Checked(path, classes)
    checked.counts = dict(
        images=len(images),
        annotations=len(records),
        crowds=sum(x.get('iscrowd') == 1 for x in records),
        categories=len(content['categories']),
    )
    checked.findings = _check_amounts(dataset, content, path)
    form = check_ids(content, path) + check_sizes(images, path)
    form += check_file_names(images, path, root, prefix)
    checked.findings += form
    checked.findings += check_categories(content, classes, path)
    if any(x.is_error for x in checked.findings):
        return checked
    checked.findings += check_presence(images, path, folder)
    checked.findings += check_boxes(content, path)
    checked.findings += check_masks(content, path, needed=_loads_masks(dataset))
    checked.findings += _check_images(dataset, content, classes, path)
    if whole:
        checked.findings += _find_repeated(records, path)
    checked.files = [
        File(os.path.join(folder, x['file_name']), (x['height'], x['width'])) for x in images
    ]
    names = {x['id']: x['name'] for x in content['categories']}
    counts = Counter(x['category_id'] for x in records)
    checked.counts['by_class'] = {names[key]: counts[key] for key in names}
    return checked


def _loads_masks(dataset: ConfigDict) -> bool:
    steps = dataset.get('pipeline') or ()
    return any(type_name(x) == 'LoadAnnotations' and x.get('with_mask') for x in steps)


def _check_amounts(dataset: ConfigDict, content: dict, path: str) -> list[Finding]:
    needed = ['images'] if dataset.get('test_mode') else ['images', 'annotations']
    empty = [key for key in needed if not content[key]]
    return find(path, 'empty lists', empty, 'is it the file of this split?')


def _check_images(
    dataset: ConfigDict, content: dict, classes: list[str], path: str
) -> list[Finding]:
    """Which images training leaves out; some must be left."""
    images = content['images']
    if dataset.get('test_mode'):
        return []
    kept = {x['id'] for x in content['categories'] if x['name'] in set(classes)}
    filters = dataset.get('filter_cfg') or {}
    labelled = {x['image_id'] for x in content['annotations'] if x['category_id'] in kept}
    bare = [x for x in images if x['id'] not in labelled]
    small = [x for x in images if min(x['height'], x['width']) < filters.get('min_size', 0)]
    empty = bool(filters.get('filter_empty_gt'))
    left_out = {x['id'] for x in [*(bare if empty else []), *small]}
    if len(left_out) == len(images):
        reason = (
            f'filter_cfg of the dataset leaves out all {len(images):,}: set it, or the classes'
        )
        return find(path, 'images to train on', ['none'], reason)
    fate = 'training leaves them out' if empty else 'training takes them as background'
    findings = find(
        path,
        "images without an object of the config's classes",
        bare,
        fate,
        lambda x: x['file_name'],
        is_error=False,
    )
    return findings + find(
        path,
        f'images with a side below filter_cfg.min_size={filters.get("min_size")}',
        small,
        'training leaves them out',
        lambda x: f'{x["file_name"]} ({x["width"]}x{x["height"]})',
        is_error=False,
    )


def _find_repeated(records: list[dict], path: str) -> list[Finding]:
    seen: set = set()
    repeated = []
    for record in records:
        if 'bbox' not in record:
            continue
        key = (record['image_id'], record['category_id'], str(record['bbox']))
        if key in seen:
            repeated.append(record)
        seen.add(key)
    return find(
        path,
        'annotations of the same image, category and bbox as another',
        repeated,
        'remove them if they are copies',
        lambda x: f'annotation {x["id"]}',
        is_error=False,
    )
