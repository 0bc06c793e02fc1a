"""From files to the report: anyone's detections on any COCO-format ground truth."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmbiformer.errors import UserError

from .coco_files import read_detections, read_ground_truth
from .resampling import Bootstrap
from .size_report import size_report
from .sizes import SizeRange, size_ranges


def judge_files(
    annotations: str | Path,
    results: dict[str, str | Path],
    ranges: Sequence[SizeRange],
    *,
    iou_type: str | None = None,
    bootstrap: Bootstrap | None = None,
    progress: bool = False,
) -> dict:
    """Judge result files by object size; see :func:`size_report`.

    Args:
        annotations (str | Path): COCO annotation file.
        results (dict): name -> COCO result file; further ones are compared with the first.
        ranges (Sequence[SizeRange]): Besides COCO's own.
        iou_type (str, optional): 'bbox' or 'segm'. Defaults to 'bbox', or to 'segm' where a file
            has no boxes.
        bootstrap (Bootstrap, optional): Where given, AP comes with intervals.
        progress (bool): Show bars.

    Raises:
        UserError: If a file or a record in it does not fit; names them.
    """
    ground_truth = read_ground_truth(annotations)
    models = {name: read_detections(path, ground_truth) for name, path in results.items()}
    if iou_type is None:
        has_boxes = all(x.boxes is not None for x in models.values())
        iou_type = 'bbox' if has_boxes else 'segm'
    kind, word = ('boxes', 'bbox') if iou_type == 'bbox' else ('segmentations', 'segmentation')
    for side in (ground_truth, *models.values()):
        if getattr(side, kind) is None:
            other = 'segm' if iou_type == 'bbox' else 'bbox'
            raise UserError(
                f"'{side.path}' has records without {word}: judge it by --iou-type {other}"
            )
    return size_report(ground_truth, models, ranges, iou_type, bootstrap, progress)


def name_results(paths: Sequence[str | Path]) -> dict[str, Path]:
    """A name for each result file: its stem, behind its folder where stems are alike."""
    paths = [Path(x) for x in paths]
    stems = [re.sub(r'(\.bbox|\.segm)?\.json$', '', x.name) for x in paths]  # mmdet's endings
    names = [
        stem if stems.count(stem) == 1 else f'{path.parent.name}/{stem}'
        for stem, path in zip(stems, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UserError(f'--results has a file twice: {" ".join(map(str, paths))}')
    return dict(zip(names, paths, strict=True))


def parse_ranges(measure: str, texts: Sequence[str] | None) -> tuple[SizeRange, ...]:
    """Size ranges as a command line gives them: ``NAME=LOW-HIGH``, or ``NAME=LOW-`` without end.

    Raises:
        UserError: If one is not of this form, or is no range.
    """
    ranges = None
    if texts:
        ranges = {}
        for text in texts:
            name, _, bounds = text.partition('=')
            low, dash, high = bounds.partition('-')
            try:
                ranges[name] = float(low), float(high or 'inf')
            except ValueError:
                dash = ''
            if not name or not dash:
                raise UserError(f"--ranges '{text}': write NAME=LOW-HIGH, as in tiny=0-16")
    try:
        return size_ranges(measure, ranges)
    except ValueError as error:
        raise UserError(str(error)) from error
