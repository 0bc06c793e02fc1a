"""From the paths of ground truth and results to what they contain."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmbiformer.errors import UserError

from ..coco_files import Detections, GroundTruth, detections_of, ground_truth_of


def read_ground_truth(
    path: str | Path, category_names: Sequence[str] | None = None
) -> GroundTruth:
    """Read a COCO annotation file; arguments are those of :func:`ground_truth_of`.

    Raises:
        UserError: If the file, or a record of it, is not what COCO's format wants.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get('images'), list):
        raise UserError(
            f"'{path}' is not a COCO annotation file, it has no list of images: are it and the "
            'results swapped?'
        )
    return ground_truth_of(content, str(path), category_names)


def read_detections(
    path: str | Path, ground_truth: GroundTruth, may_be_empty: bool = False
) -> Detections:
    """Read detections in COCO's result format; arguments are those of :func:`detections_of`.

    Raises:
        UserError: If the file, or a record of it, is not what COCO's format wants.
    """
    content = _read_json(path)
    if isinstance(content, dict) and 'images' in content:
        raise UserError(f"'{path}' is an annotation file: results are a list of detections")
    return detections_of(content, str(path), ground_truth, may_be_empty)


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
