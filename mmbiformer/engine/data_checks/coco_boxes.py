"""Checks of the boxes, areas and flags in a COCO annotation file."""

from itertools import chain

import numpy as np

from .coco_files import LIMIT, is_coordinate, name
from .findings import Finding, find, short

# Boxes that COCO's annotators drew end within a pixel of the image.
TOLERANCE = 1.0
# More of them than these, and than this part of all, look like boxes in another format.
TOO_MANY, TOO_LARGE_A_PART = 10, 0.1


def check_sizes(images: list[dict], path: str) -> list[Finding]:
    """Every image has a height and a width."""
    wrong = [
        i
        for i, x in enumerate(images)
        if not (_is_side(x.get('height')) and _is_side(x.get('width')))
    ]
    return find(
        path,
        'images without a height and a width that are whole numbers above 0',
        wrong,
        "write the images' own",
        lambda i: (
            f'image {short(images[i].get("id"))} (height {short(images[i].get("height"))}, width '
            f'{short(images[i].get("width"))})'
        ),
    )


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value < 1_000_000


def check_boxes(content: dict[str, list], path: str) -> list[Finding]:
    """Boxes are finite, have an extent and lie in their image; areas and flags are what they mean.

    Needs records that passed :func:`check_ids` and :func:`check_sizes`.
    """
    records = content['annotations']
    values = [x.get('bbox') for x in records]
    are_lists = all(type(x) is list and len(x) == 4 for x in values)
    # Of most files all are right, which is told in bulk.
    boxes = _numbers(list(chain.from_iterable(values))) if are_lists else None
    not_boxes = []
    if boxes is None:
        not_boxes = [i for i, x in enumerate(values) if not _is_box(x)]
    values = [x.get('area') for x in records]
    areas = _numbers(values)
    not_areas = []
    if areas is None or (areas < 0).any():
        not_areas = [i for i, x in enumerate(values) if not is_coordinate(x) or x < 0]
    not_flags = [i for i, x in enumerate(records) if not _is_flag(x.get('iscrowd', 0))]

    def value(key: str):
        return lambda i: f'{name(records, i)} ({key} {short(records[i].get(key))})'

    findings = find(
        path,
        'bbox that is not four finite numbers x, y, width, height',
        not_boxes,
        'mend or remove these annotations',
        value('bbox'),
    )
    findings += find(
        path,
        'area that is not a finite number from 0 on, in pixels',
        not_areas,
        "write the mask's, or width * height of the box",
        value('area'),
    )
    findings += find(
        path,
        'iscrowd that is neither 0 nor 1',
        not_flags,
        'write 0 for objects and 1 for crowds',
        value('iscrowd'),
    )
    if findings:
        return findings
    return _check_geometry(content, boxes.reshape(-1, 4), areas, path)


def _numbers(values: list) -> np.ndarray | None:
    """Coordinates as an array, (N, ); None if one is none."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        return None
    return numbers if (np.abs(numbers) < LIMIT).all() else None


def _is_box(box: object) -> bool:
    return type(box) is list and len(box) == 4 and all(map(is_coordinate, box))


def _is_flag(value: object) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


def _check_geometry(
    content: dict[str, list], boxes: np.ndarray, areas: np.ndarray, path: str
) -> list[Finding]:
    records = content['annotations']
    sizes = {x['id']: (x['width'], x['height']) for x in content['images']}
    limits = [sizes[x['image_id']] for x in records]
    limits = np.fromiter(chain.from_iterable(limits), np.float64).reshape(-1, 2)
    start, extent = boxes[:, :2], boxes[:, 2:]
    stop = start + extent
    negative = (extent < 0).any(axis=1)
    empty = ~negative & (extent < 1).any(axis=1)  # what mmdet leaves out
    overlap = np.minimum(stop, limits) - np.maximum(start, 0)
    outside = ~negative & (extent > 0).all(axis=1) & (overlap <= 0).any(axis=1)
    beyond = ((start < -TOLERANCE) | (stop > limits + TOLERANCE)).any(axis=1)
    beyond &= ~negative & ~outside
    larger = ~negative & (areas > 1.01 * extent.prod(axis=1) + 1) & ~empty
    without_area = ~negative & ~empty & (areas == 0)
    too_many = max(TOO_MANY, TOO_LARGE_A_PART * len(records))
    findings = []

    def box(i: int) -> str:
        width, height = sizes[records[i]['image_id']]
        return f'{name(records, i)} (bbox {short(records[i]["bbox"])}, image {width}x{height})'

    def area(i: int) -> str:
        return f'{name(records, i)} (area {records[i]["area"]}, bbox {short(records[i]["bbox"])})'

    def add(what: str, bad: np.ndarray, remedy: str, suspicion: str = '') -> None:
        """An error, or where there is a suspicion, one if there are too many of them."""
        is_error = not suspicion or bad.sum() > too_many
        remedy = suspicion if suspicion and is_error else remedy
        findings.extend(find(path, what, np.flatnonzero(bad), remedy, box, is_error))

    def note(what: str, bad: np.ndarray, remedy: str) -> None:
        findings.extend(find(path, what, np.flatnonzero(bad), remedy, area, is_error=False))

    form = 'boxes are x, y, width, height in pixels'
    add('boxes of negative width or height', negative, f'mend or remove them: {form}')
    add('boxes outside of their image', outside, f'mend or remove them: {form}')
    add(
        'boxes that reach beyond their image',
        beyond,
        'training takes them as they are: mend them',
        f'{form}: are these corners, or of resized images?',
    )
    add(
        'boxes less than a pixel wide or high',
        empty,
        'training leaves them out',
        f'{form}: are these relative to the image?',
    )
    note('objects of area 0', without_area, 'training leaves them out')
    note('areas larger than the box', larger, 'results by size depend on them: mend them')
    flagged = np.array([bool(x.get('ignore')) for x in records], bool)
    note('annotations with the flag ignore', flagged, 'training leaves them out')
    return findings
