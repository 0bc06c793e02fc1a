"""Checks of the masks in a COCO annotation file, of a form before pycocotools trusts it."""

import numpy as np

from mmbiformer.evaluation.detection.rle import find_broken, rle_problem

from .coco_files import NOT_READ, name
from .findings import Finding, find

FAR = 10  # sides of the image


def check_masks(content: dict[str, list], path: str, needed: bool) -> list[Finding]:
    """Masks are polygons or run-length encodings of their image's size.

    Needs records that passed :func:`check_ids` and :func:`check_sizes`.

    Args:
        content (dict): Of the annotation file.
        path (str): The file.
        needed (bool): Whether the pipeline loads masks, so that each object needs one.
    """
    records = content['annotations']
    sizes = {x['id']: (x['height'], x['width']) for x in content['images']}
    lacking, broken, short, compressed = [], [], [], []
    for i, record in enumerate(records):
        mask = record.get('segmentation')
        if mask == NOT_READ:
            continue
        if not mask:
            lacking.append(i)
        elif not isinstance(mask, dict):
            problem = _polygons_problem(mask, sizes[record['image_id']])
            if problem:
                broken.append((i, problem))
            elif any(len(x) < 6 or len(x) % 2 for x in mask):
                short.append(i)
        elif problem := rle_problem(mask, *sizes[record['image_id']]):
            broken.append((i, problem))
        elif not isinstance(mask['counts'], list):
            compressed.append(i)
    partial = _find_partial(records, sizes, compressed)
    broken += [(i, 'runs that are not of all its pixels') for i in partial]
    findings = find(
        path,
        'masks that are neither polygons nor run-length encodings of their image',
        sorted(broken),
        'mend or remove these annotations',
        lambda x: f'{name(records, x[0])} ({x[1]})',
        is_error=needed,
    )
    findings += find(
        path,
        'polygons of less than three points, or of an odd count of numbers',
        short,
        'mmdet leaves them out',
        lambda i: name(records, i),
        is_error=False,
    )
    if needed:
        findings += find(
            path,
            'annotations without a mask, and the pipeline loads masks',
            lacking,
            'draw them, or remove these annotations',
            lambda i: name(records, i),
        )
    return findings


def _polygons_problem(polygons: object, size: tuple[int, int]) -> str | None:
    """What is wrong with polygons; this sees forty million numbers of COCO, so it is in bulk."""
    if type(polygons) is not list or any(type(x) is not list for x in polygons):
        return 'no list of polygons'
    limit = FAR * max(size)
    for polygon in polygons:
        if not set(map(type, polygon)) <= {int, float}:
            return 'a polygon with something that is no number'
        # Sums of finite numbers are finite; one with NaN or an infinite number is not within.
        if polygon and not (-limit < min(polygon) <= max(polygon) < limit and sum(polygon) < 1e12):
            # pycocotools would take the memory of such an outline.
            return 'a polygon with points that are not finite, or far outside of the image'
    return None


def _find_partial(records: list[dict], sizes: dict, positions: list[int]) -> list[int]:
    """Which of the compressed encodings are not of their image's pixels."""
    found = []
    counts = [records[i]['segmentation']['counts'] for i in positions]
    pixels = [int(np.prod(sizes[records[i]['image_id']])) for i in positions]
    start = 0
    while (first := find_broken(counts[start:], pixels[start:])) is not None and len(found) < 100:
        found.append(positions[start + first])
        start += first + 1
    return found
