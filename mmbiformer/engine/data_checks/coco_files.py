"""Reading COCO annotation files, and checking the form of their records."""

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmbiformer.errors import UserError

from .findings import Finding, find, short

# Of a larger file polygons are not read: they are two thirds of its text, and of the time.
LARGE = 2**26
POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[\s*\[\s*[-0-9][-+0-9eE.,\s\[\]]*\]')
NOT_READ = '(polygons, not read)'
STAND_IN = f'"segmentation":"{NOT_READ}"'.encode()
# Numbers beyond are no coordinates; NaN, infinite and too large whole numbers are none within.
LIMIT = 1e9


def read_coco(path: str, whole: bool = False) -> dict[str, list]:
    """The content of a COCO annotation file, with lists of images, annotations and categories.

    Args:
        path (str): The file.
        whole (bool): Read polygons of large files as well.

    Raises:
        UserError: If the file is missing, no JSON, or lacks one of the lists.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    if not text.strip():
        raise _no_coco(path, 'it is empty')
    if text.lstrip()[:1] == b'<':
        raise _no_coco(path, 'it is a web page or XML, as failed downloads are')
    if len(text) > LARGE and not whole:
        text = POLYGONS.sub(STAND_IN, text)
    try:
        # Decoded here, as mmdet does by opening the file as text: json would guess.
        content = json.loads(text.decode())
    except RecursionError as error:
        raise _no_coco(path, 'it is nested too deeply') from error
    except ValueError as error:
        raise _no_coco(path, f'{error}; it may be truncated') from error
    for key in ('images', 'annotations', 'categories'):
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise _no_coco(path, f'it has no list of {key}')
        strange = [i for i, x in enumerate(records) if type(x) is not dict]
        if strange:
            value = short(records[strange[0]])
            raise _no_coco(path, f'record {strange[0]} of {key} is {value}, no object')
    return content


def _no_coco(path: str, reason: str) -> UserError:
    return UserError(f"'{path}' is not a COCO annotation file ({reason}): restore it")


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of objects, all of which are needed, would set it off again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_ids(content: dict[str, list], path: str) -> list[Finding]:
    """Every image, annotation and category has an id of its own; all are known where named."""
    findings = []
    known = {}
    for key in ('images', 'categories', 'annotations'):
        records = content[key]
        kinds = {type(x.get('id')) for x in records}
        # Of two kinds, such as 1 and '1', it is unclear which are meant to be equal.
        wrong = [] if kinds <= {int} or kinds <= {str} else _no_whole_ids(records)
        findings += find(
            path,
            f'{key} without an id that is a whole number',
            wrong,
            f'number the {key}',
            lambda i, key=key, records=records: (
                f'record {i} of {key} (id {short(records[i].get("id"))})'
            ),
        )
        ids = [value for x in records if type(value := x.get('id')) in (int, str)]
        known[key] = set(ids)
        twice = []
        if len(known[key]) < len(ids):
            twice = [value for value, count in Counter(ids).items() if count > 1]
        remedy = f'give each of the {key} an id of its own'
        findings += find(path, f'ids of {key} that occur twice', twice, remedy, short)
    records = content['annotations']
    for key, place in (('image_id', 'images'), ('category_id', 'categories')):
        ids = known[place]
        named = [x.get(key) for x in records]
        unknown = []
        if not (set(map(type, named)) <= {int, str} and set(named) <= ids):  # of most, in bulk
            unknown = [i for i, value in enumerate(named) if not _is_known(value, ids)]
        remedy = f'remove them, or add the {place}: is the file of another data set?'
        findings += find(
            path,
            f'annotations whose {key} is not among the {place}',
            unknown,
            remedy,
            lambda i, key=key: f'{name(records, i)} ({key} {short(records[i].get(key))})',
        )
    return findings


def _no_whole_ids(records: list[dict]) -> list[int]:
    return [i for i, x in enumerate(records) if type(x.get('id')) is not int] or [0]


def _is_known(value: Any, ids: set) -> bool:
    return type(value) in (int, str) and value in ids


def name(records: list[dict], position: int) -> str:
    """How messages name an annotation or image of a file: by its id, else by its position."""
    value = records[position].get('id')
    kind = 'annotation' if 'image_id' in records[position] else 'record'
    return f'{kind} {value}' if type(value) in (int, str) else f'record {position}'


def is_coordinate(value: Any) -> bool:
    """Whether it is a number that may be a coordinate in pixels."""
    return type(value) in (int, float) and -LIMIT < value < LIMIT
