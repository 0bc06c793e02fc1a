"""From the paths of ground truth and results to what they contain, in whatever format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmbiformer.errors import UserError

from ..coco_files import Detections, GroundTruth, detections_of, ground_truth_of
from . import box_lists, ultralytics, yolo_labels
from .matching import ImageNames, categories_of

# By the keys of the first record of a JSON file; a folder is one of YOLO labels. Each has
# read(content, images).
FORMATS = {
    ('bbox', 'segmentation'): ultralytics,
    ('boxes', 'labels', 'scores'): box_lists,
}


def read_ground_truth(
    path: str | Path,
    category_names: Sequence[str] | None = None,
    image_dir: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> GroundTruth:
    """Read a COCO annotation file, or a folder of YOLO labels.

    Args:
        path (str | Path): File or folder.
        category_names (Sequence[str], optional): Of the categories to keep. Defaults to all.
        image_dir (str | Path, optional): Where the images of a folder of labels lie.
        class_names (Sequence[str], optional): Of its classes, in order. Defaults to numbers.

    Raises:
        UserError: If the file, or a record or line of it, is not what its format wants.
    """
    if Path(path).is_dir():
        return yolo_labels.read_ground_truth(Path(path), image_dir, class_names, category_names)
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get('images'), list):
        raise UserError(
            f"'{path}' is not a COCO annotation file, it has no list of images: are it and the "
            'results swapped?'
        )
    return ground_truth_of(content, str(path), category_names)


def read_detections(
    path: str | Path,
    ground_truth: GroundTruth,
    may_be_empty: bool = False,
    class_names: Sequence[str] | None = None,
    class_numbers: str | None = None,
) -> Detections:
    """Read results in one of :data:`FORMATS`; see :func:`detections_of`, :func:`categories_of`.

    Raises:
        UserError: If the path, or a record or line of it, is not what its format wants, or can be
            read in two ways.
    """
    images = ImageNames(ground_truth, str(path))
    if Path(path).is_dir():
        found = yolo_labels.read(Path(path), images)
    else:
        content = _read_json(path)
        if isinstance(content, dict) and 'images' in content:
            raise UserError(f"'{path}' is an annotation file: results are a list of detections")
        is_dict = isinstance(content, dict)
        records = list(content.values()) if is_dict else content
        first = records[0] if isinstance(records, list) and records else None
        keys = [x for x in FORMATS if isinstance(first, dict) and first.keys() & set(x)]
        if len(keys) > 1:
            raise UserError(f"'{path}' may be of two formats: keep one of {keys[0]} and {keys[1]}")
        if not keys or (is_dict and FORMATS[keys[0]] is not box_lists):
            return detections_of(content, str(path), ground_truth, may_be_empty)
        found = FORMATS[keys[0]].read(content, images)
    records = found.records
    if class_numbers or found.readings != ('ids',):
        ids = categories_of(found, images, class_names, class_numbers)
        records = [{**x, 'category_id': i} for x, i in zip(records, ids, strict=True)]
    detections = detections_of(records, str(path), ground_truth, may_be_empty, found.names)
    detections.notices = found.notices
    return detections


def _read_json(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"'{path}' not found: check the path")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        size = path.stat().st_size
        raise UserError(
            f"'{path}' ({size:,} bytes) is not valid JSON, perhaps truncated: {error}"
        ) from error
