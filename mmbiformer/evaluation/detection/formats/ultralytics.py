"""COCO's result format, and Ultralytics' predictions.json of ``yolo val save_json=True``.

These are records of COCO's format whose image_id is the name of the image file without ending, as
a number where it is one; category_id is COCO's for COCO itself, else the class's place from 1.
They have a file_name, in older releases not; the oldest count from 0. Source: ``pred_to_json`` and
``init_metrics`` of the DetectionValidator in ultralytics 8.4.190, and its pull request 18140.
"""

from pathlib import PurePosixPath
from typing import Any

from .matching import Found, ImageNames


def read(records: list, images: ImageNames) -> Found:
    """Records of COCO's result format, whose images are found by id or else by name."""
    is_ultralytics = all(map(_is_ultralytics, records))
    readings = ('ids', 'from-1', 'coco') if is_ultralytics else ('ids', 'from-1', 'coco', 'from-0')
    # Its image_id is made of a name, and may by chance be the id of another image.
    key = 'file_name' if is_ultralytics and images.has_names else 'image_id'
    if key == 'image_id' and images.has_ids(records):
        return Found(records, readings if is_ultralytics else ('ids',))
    ids = images.ids_of(records, key)
    return Found([{**x, 'image_id': i} for x, i in zip(records, ids, strict=True)], readings)


def _is_ultralytics(record: Any) -> bool:
    """Whether its image_id is made of its file_name."""
    name = record.get('file_name') if isinstance(record, dict) else None
    stem = PurePosixPath(name).stem if isinstance(name, str) else ''
    return stem != '' and record.get('image_id') == (int(stem) if stem.isdecimal() else stem)
