"""Reading folders of label maps: ground truth, and what models predicted for it.

A label map is an 8-bit PNG with one channel, or with a palette whose indices are the labels. A
prediction has the file name of its ground truth, as mmseg's ``IoUMetric(output_dir=...)`` writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmbiformer.errors import UserError

from ..sizes import SizeRange
from .segment_sizes import SegmentCounts, check_labels, count_segments, find_segments

IGNORED = 255


@dataclass
class FolderCounts:
    """What the label maps of one folder get right.

    Attributes:
        path (str): The folder.
        counts (SegmentCounts): Of the I images by name, stacked, (I, ...).
        notices (list[str]): What was left out, or looks wrong.
    """

    path: str
    counts: SegmentCounts
    notices: list[str]


def count_folders(
    gt_dir: str | Path,
    pred_dirs: Sequence[str | Path],
    num_classes: int,
    ranges: Sequence[SizeRange],
    reduce_zero_label: bool = False,
) -> list[FolderCounts]:
    """Count what each folder of predictions gets right, on every map of the ground truth.

    255 is ignored in the ground truth and wrong in a prediction; with ``reduce_zero_label`` 0 is
    too, and class 0 has the label 1, in all files: as in ADE20K, and in what mmseg writes for data
    sets with ``reduce_zero_label``.

    Args:
        ranges (Sequence[SizeRange]): Of :func:`segment_ranges`.

    Returns:
        list[FolderCounts]: In the order of ``pred_dirs``.

    Raises:
        UserError: If a folder or file is missing, not readable, of another data set or size, or
            has a label that is neither a class nor ignored.
    """
    limit = IGNORED - int(reduce_zero_label)
    if not 0 < num_classes <= limit:
        raise UserError(f'{num_classes} classes: 8-bit label maps hold 1 to {limit}')
    names, gt_notices = _list_maps(gt_dir)
    notices = []
    for pred_dir in pred_dirs:
        predicted, own_notices = _list_maps(pred_dir)
        _check_names(gt_dir, names, pred_dir, predicted)
        notices.append(gt_notices + own_notices)

    counts = [[] for _ in pred_dirs]
    for name in tqdm(names, desc='label maps', unit='image', mininterval=0.5):
        labels = read_map(Path(gt_dir, name), num_classes, reduce_zero_label)
        segments = find_segments(labels, num_classes, IGNORED)
        for pred_dir, own in zip(pred_dirs, counts, strict=True):
            path = Path(pred_dir, name)
            prediction = read_map(path, num_classes, reduce_zero_label)
            try:
                own.append(count_segments(prediction, segments, ranges))
            except ValueError as error:
                raise UserError(f"'{path}': {error}") from error
    folders = []
    stacked = map(SegmentCounts.stack, counts)
    for pred_dir, own, notes in zip(pred_dirs, stacked, notices, strict=True):
        unpredicted = int(own.total().unpredicted)
        if reduce_zero_label and unpredicted:
            notes.append(
                f"'{pred_dir}' has the label 0 or 255, no class, at {unpredicted:,} pixels of a "
                'class: if its classes begin with 0 and not 1, each is taken for the one before it'
            )
        folders.append(FolderCounts(str(pred_dir), own, notes))
    return folders


def _list_maps(folder: str | Path) -> tuple[list[str], list[str]]:
    """File names of the maps, sorted, and a notice on files that are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder: give the folder of the label maps")
    files = sorted(path.name for path in folder.iterdir())
    names = [name for name in files if name.endswith('.png')]
    if not names:
        raise UserError(f"'{folder}' has no .png files: give the folder of the label maps itself")
    others = [name for name in files if not name.endswith('.png')]
    if not others:
        return names, []
    return names, [f"'{folder}' has {_describe(others)} besides .png files; left out"]


def _check_names(
    gt_dir: str | Path, names: list[str], pred_dir: str | Path, predicted: list[str]
) -> None:
    further = sorted(set(predicted) - set(names))
    if further:
        raise UserError(
            f"'{pred_dir}' has {_describe(further)} without ground truth in '{gt_dir}': are they "
            'of another data set or split?'
        )
    missing = sorted(set(names) - set(predicted))
    if missing:
        raise UserError(
            f"'{pred_dir}' lacks {_describe(missing)} of the {len(names):,} in '{gt_dir}': finish "
            'the test, or leave no more ground truth than there are predictions'
        )


def _describe(names: list[str]) -> str:
    return f"'{names[0]}'" + (f' and {len(names) - 1:,} more' if names[1:] else '')


def read_map(path: Path, num_classes: int, reduce_zero_label: bool) -> np.ndarray:
    """Classes from 0 and 255 for none, uint8 (H, W), of a label map.

    Raises:
        UserError: If it is none, or has labels beyond the classes.
    """
    try:
        with Image.open(path, formats=['PNG']) as image:
            mode, labels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"'{path}' cannot be read as PNG, perhaps truncated ({error}): restore it"
        ) from error
    if mode not in ('L', 'P'):
        raise UserError(
            f"'{path}' is a PNG of mode {mode}, and a label map has one channel of 8 bits: "
            'give the label maps and not coloured pictures of them'
        )
    if reduce_zero_label:
        # 0 becomes 255, as unsigned numbers wrap.
        labels = np.where(labels == IGNORED, labels, labels - 1)
    try:
        check_labels('label', labels, num_classes, IGNORED, first=int(reduce_zero_label))
    except ValueError as error:
        raise UserError(f"'{path}': {error}") from error
    return labels
