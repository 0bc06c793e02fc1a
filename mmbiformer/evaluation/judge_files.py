"""From files to the report: detections or label maps of anyone."""

from collections.abc import Sequence
from pathlib import Path

from mmbiformer.errors import UserError

from .detection.coco_files import check_iou_type
from .detection.formats.reading import read_detections, read_ground_truth
from .detection.size_report import size_report
from .report_data import DetectionReport, Report
from .resampling import Bootstrap
from .segmentation.segment_files import count_folders
from .segmentation.segment_report import segment_report
from .segmentation.segment_sizes import ALL_SIZES
from .sizes import SizeRange


def judge_files(
    annotations: str | Path,
    results: dict[str, str | Path],
    ranges: Sequence[SizeRange],
    *,
    iou_type: str | None = None,
    category_names: Sequence[str] | None = None,
    may_be_empty: bool = False,
    bootstrap: Bootstrap | None = None,
    progress: bool = False,
    image_dir: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    class_numbers: str | None = None,
) -> DetectionReport:
    """Judge result files by object size; see :func:`size_report`.

    Args:
        annotations (str | Path): COCO annotation file, or folder of YOLO labels.
        results (dict): name -> file or folder in one of the formats of docs/result_formats.md;
            further ones are compared with the first.
        ranges (Sequence[SizeRange]): Besides COCO's own.
        iou_type (str, optional): 'bbox' or 'segm'. Defaults to 'segm' where every annotation and
            every result has a mask, else to 'bbox'.
        category_names (Sequence[str], optional): Judge these alone. Defaults to all.
        may_be_empty (bool): A file without detections is a detector that found nothing, and no
            mistake.
        bootstrap (Bootstrap, optional): Where given, AP comes with intervals.
        progress (bool): Show bars.
        image_dir (str | Path, optional): Where the images of a folder of YOLO labels lie.
        class_names (Sequence[str], optional): Of the classes that labels and results number, in
            order. Defaults to the annotations'.
        class_numbers (str, optional): What class numbers in results are: 'ids' of categories,
            places among the classes 'from-0' or 'from-1', or the ids of 'coco'. Defaults to what
            the format means.

    Raises:
        UserError: If a file or a record in it does not fit, or can be read in two ways; names
            them.
    """
    ground_truth = read_ground_truth(annotations, category_names, image_dir, class_names)
    if ground_truth.crowd.all():
        raise UserError(f"'{annotations}' has no objects, so there is nothing to judge by")
    models = {
        name: read_detections(path, ground_truth, may_be_empty, class_names, class_numbers)
        for name, path in results.items()
    }
    if iou_type is None:
        has_masks = all(x.segmentations is not None for x in models.values())
        iou_type = 'segm' if has_masks and None not in ground_truth.segmentations else 'bbox'
    for records in (ground_truth, *models.values()):  # before any of them is judged
        check_iou_type(records, iou_type)
    return size_report(ground_truth, models, ranges, iou_type, bootstrap, progress)


def judge_folders(
    gt_dir: str | Path,
    pred_dirs: dict[str, str | Path],
    class_names: Sequence[str],
    ranges: Sequence[SizeRange],
    *,
    reduce_zero_label: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Report:
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
    counts = count_folders(
        gt_dir, list(pred_dirs.values()), len(class_names), ranges, reduce_zero_label
    )
    folders = dict(zip(pred_dirs, counts, strict=True))
    return segment_report(folders, ranges, class_names, bootstrap)
