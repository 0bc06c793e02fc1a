"""What a record of COCO's JSON formats must be, and how messages name one that is not."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from mmbiformer.errors import UserError


def check_ids(records: list, key: str, path: str) -> None:
    """Every record of the list ``key`` of a file has an id of its own, all of one type.

    Raises:
        UserError: Names the first that has not.
    """
    seen = set()
    kinds = set()
    for position, record in enumerate(records):
        value = record.get('id') if isinstance(record, dict) else None
        kinds.add(type(value))
        if type(value) not in (int, str) or len(kinds) > 1:
            problem = 'has no id' if value is None else f'has the id {value!r}: use whole numbers'
            raise UserError(f"record {position} of {key} of '{path}' {problem}")
        if record['id'] in seen:
            raise UserError(f"{key} of '{path}' have the id {record['id']} twice")
        seen.add(record['id'])


def positions_of(
    records: list[dict], key: str, ids: list, path: str, other: str | None = None
) -> np.ndarray:
    """Where in ``ids`` each record's ``key`` is, int64.

    Raises:
        UserError: Names the first record whose value is not among them, and how many there are.
    """
    position = {value: i for i, value in enumerate(ids)}
    try:
        return np.array([position[x[key]] for x in records], np.int64)
    except (KeyError, TypeError):
        pass
    bad = [i for i, x in enumerate(records) if not _is_known(x, key, position)]
    first = records[bad[0]]
    if not isinstance(first, dict) or key not in first:
        raise UserError(f'{name_record(first, bad[0], path)} has no {key}')
    where = f"'{other}'" if other else 'its images'
    what = 'all of them' if len(bad) == len(records) else f'{len(bad):,} of {len(records):,}'
    raise UserError(
        f'{name_record(first, bad[0], path)} has {key} {first[key]!r}, which is not in {where} '
        f'({what}): is it of another data set?'
    )


def _is_known(record: Any, key: str, position: dict) -> bool:
    try:
        return record[key] in position
    except (KeyError, TypeError):
        return False


def check_records(
    records: list,
    check: Callable[[dict], str | None],
    path: str,
    names: list[str] | None = None,
) -> None:
    """No record has what ``check`` calls a problem; messages name them so, or by position.

    Raises:
        UserError: Names the first that has one.
    """
    for position, record in enumerate(records):
        problem = check(record)
        if problem:
            name = names[position] if names else name_record(record, position, path)
            raise UserError(f'{name} has {problem}')


def name_record(record: Any, position: int, path: str) -> str:
    """How a message names a record."""
    known = isinstance(record, dict)
    details = [f'{key} {record[key]}' for key in ('id', 'image_id') if known and key in record]
    return f"record {position} of '{path}'" + (f' ({", ".join(details)})' if details else '')


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    try:
        return isinstance(value, int | float) and type(value) is not bool and isfinite(value)
    except OverflowError:  # a whole number beyond floats
        return False


def box_problem(record: dict) -> str | None:
    """What is wrong with the box of an object or a detection."""
    box = record.get('bbox')
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        return f'bbox {box!r}, not four finite numbers x, y, width, height'
    if min(box[2:]) < 0:
        return f'bbox {box!r}, of negative width or height'
    return None
