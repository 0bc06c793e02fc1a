"""From files to the report: detections or label maps of anyone, and the options of its tools."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from mmbiformer.errors import UserError

from .coco_files import read_detections, read_ground_truth
from .resampling import Bootstrap
from .segment_files import count_folders
from .segment_report import segment_report
from .segment_sizes import ALL_SIZES
from .size_report import size_report
from .sizes import MEASURES, SizeRange, size_ranges


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
    if ground_truth.crowd.all():
        raise UserError(f"'{annotations}' has no objects, so there is nothing to judge by")
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
    """A name for each file or folder: its stem, behind its folder where stems are alike."""
    paths = [Path(x) for x in paths]
    stems = [re.sub(r'(\.bbox|\.segm)?\.json$', '', x.name) for x in paths]  # mmdet's endings
    names = [
        stem if stems.count(stem) == 1 else f'{path.parent.name}/{stem}'
        for stem, path in zip(stems, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UserError(f'given twice: {" ".join(map(str, paths))}')
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
            if name in ranges:
                raise UserError(f"--ranges names '{name}' twice: rename one")
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


def judge_folders(
    gt_dir: str | Path,
    pred_dirs: dict[str, str | Path],
    class_names: Sequence[str],
    ranges: Sequence[SizeRange],
    *,
    reduce_zero_label: bool = False,
    bootstrap: Bootstrap | None = None,
) -> dict:
    """Judge folders of label maps by the size of segments; see :func:`segment_report`.

    Args:
        gt_dir (str | Path): Folder of ground-truth label maps.
        pred_dirs (dict): name -> folder of predicted ones; further ones are compared with the
            first.
        class_names (Sequence[str]): K names.
        ranges (Sequence[SizeRange]): Besides all sizes.
        reduce_zero_label (bool): In all files 0 is no class, and classes begin with 1.
        bootstrap (Bootstrap, optional): Where given, scores come with intervals.

    Raises:
        UserError: If a folder or a map in it does not fit; names them.
    """
    ranges = (ALL_SIZES, *ranges)
    found = count_folders(
        gt_dir, list(pred_dirs.values()), len(class_names), ranges, reduce_zero_label
    )
    folders = dict(zip(pred_dirs, found, strict=True))
    return segment_report(folders, ranges, class_names, bootstrap)


def add_size_options(parser: ArgumentParser, out_dir: str) -> None:
    """Options of every tool that reports by size."""
    parser.add_argument(
        '--measure', choices=MEASURES, default='side', help='what sizes are in (side, in pixels)'
    )
    parser.add_argument(
        '--ranges', nargs='+', help='NAME=LOW-HIGH in that measure, HIGH not included; or octaves'
    )
    parser.add_argument('--bootstrap', type=int, default=1000, help='resamples; 0 for none (1000)')
    parser.add_argument('--seed', type=int, default=0, help='of the resamples (0)')
    parser.add_argument('--out-dir', default=out_dir, help=f'where the report goes ({out_dir})')


def read_size_options(args: Namespace) -> tuple[tuple[SizeRange, ...], Bootstrap | None]:
    """What the options of :func:`add_size_options` ask for.

    Raises:
        UserError: If a range or a number is none.
    """
    if args.seed < 0:
        raise UserError(f'--seed {args.seed}: give a number from 0 on')
    if args.bootstrap and args.bootstrap < 100:
        raise UserError(f'--bootstrap {args.bootstrap}: give 100 or more, or 0 for no intervals')
    bootstrap = Bootstrap(args.bootstrap, args.seed) if args.bootstrap else None
    return parse_ranges(args.measure, args.ranges), bootstrap
