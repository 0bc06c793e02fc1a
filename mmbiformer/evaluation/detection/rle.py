"""Checks of masks, before they reach a library that trusts them.

A compressed encoding that was cut off has no end of its last number, or describes fewer pixels
than the image has: pycocotools and what continues it never return from comparing it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .coco_records import is_number

# A number takes up to so many characters of five bits each.
LONGEST = 7


def polygons_problem(value: Any) -> str | None:
    """What is wrong with the segmentation of an object that is no run-length encoding."""
    is_mask = isinstance(value, list) and all(
        isinstance(x, list) and len(x) >= 6 and len(x) % 2 == 0 and all(map(is_number, x))
        for x in value
    )
    return None if is_mask else 'a segmentation that is neither polygons nor run-length encoded'


def rle_problem(mask: Any, height: int, width: int) -> str | None:
    """What is wrong with the form of a mask of an image, its compressed runs aside."""
    if not isinstance(mask, dict) or not {'size', 'counts'} <= mask.keys():
        return 'a segmentation that is no run-length encoding, a dict of size and counts'
    size, counts = mask['size'], mask['counts']
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        return (
            f'a mask of height and width {size!r}, its image has {[height, width]}: masks are of '
            'the size of the original image'
        )
    if isinstance(counts, str | bytes):
        return None
    is_runs = isinstance(counts, list) and all(type(x) is int and x >= 0 for x in counts)
    if not is_runs or sum(counts) != height * width:
        return f'a mask whose counts are not runs of its {height * width:,} pixels'
    return None


def find_broken(counts: Sequence[str | bytes], pixels: Sequence[int]) -> int | None:
    """Position of the first of compressed encodings whose runs are not of so many pixels.

    Args:
        counts (Sequence[str | bytes]): In COCO's compression: numbers of five bits a character,
            from the third run on as differences to the run before the last.
        pixels (Sequence[int]): Of each mask.
    """
    texts = [x.encode('latin-1', 'replace') if isinstance(x, str) else x for x in counts]
    lengths = np.array([len(x) for x in texts], np.int64)
    if not len(lengths):
        return None
    codes = np.frombuffer(b''.join(texts), np.uint8).astype(np.int64) - ord('0')
    mask = np.repeat(np.arange(len(texts)), lengths)
    broken = (lengths == 0) & (np.asarray(pixels) > 0)
    np.logical_or.at(broken, mask[(codes < 0) | (codes > 63)], True)
    is_last = codes & 32 == 0
    ends = lengths.cumsum()[lengths > 0] - 1
    broken[mask[ends[~is_last[ends]]]] = True  # in the middle of a number
    is_last[ends] = True

    last = np.flatnonzero(is_last)
    first = np.concatenate([[0], last[:-1] + 1])
    size = last - first + 1
    broken[mask[last[size > LONGEST]]] = True
    place = np.minimum(np.arange(len(codes)) - np.repeat(first, size), LONGEST)
    numbers = np.add.reduceat((codes & 31) << 5 * place, first)
    numbers -= np.where(codes[last] & 16, 1 << 5 * np.minimum(size, LONGEST), 0)

    # Undo the differences: sums over every second number, the first of all standing alone.
    owner = mask[last]
    position = np.arange(len(owner)) - np.searchsorted(owner, owner)
    chain = 3 * owner + np.where(position == 0, 0, 2 - position % 2)
    order = np.argsort(chain, kind='stable')
    sums, chain = numbers[order].cumsum(), chain[order]
    start = np.searchsorted(chain, chain)
    runs = sums - np.concatenate([[0], sums])[start]
    owner = owner[order]
    broken[owner[runs < 0]] = True
    total = np.zeros(len(texts), np.int64)
    np.add.at(total, owner, runs)
    broken |= total != np.asarray(pixels)
    return int(broken.argmax()) if broken.any() else None
