"""Reports in types of JSON: the one place that knows the keys of the files."""

from dataclasses import asdict
from math import isinf

from .. import report_data
from ..sizes import SizeRange


def report_json(report: report_data.Report) -> dict:
    """What ``size_ap.json`` has of a report on detectors, ``segment_sizes.json`` of segmenters.

    Scores are numbers under their own names; ``intervals`` beside them has [low, high] of each.
    Without a bootstrap it is empty, and in reports on detectors not there.
    """
    content, describe = {}, _segmenter
    if isinstance(report, report_data.DetectionReport):
        describe = _detector
        content = dict(
            iou_type=report.iou_type,
            ground_truth=asdict(report.ground_truth),
            ranges=[dict(_range(x), is_coco=x.is_coco) for x in report.ranges],
        )
    return dict(
        **content,
        bootstrap=report.bootstrap and asdict(report.bootstrap),
        models=[describe(x) for x in report.models],
        differences=[_difference(x) for x in report.differences],
    )


def _detector(model: report_data.Detector) -> dict:
    return dict(
        name=model.name,
        path=model.path,
        **model.counts,
        notices=model.notices,
        coco=_values(model.overall),
        best_threshold=model.best_threshold,
        best_f1=model.best_f1,
        sizes=[
            _row(row, errors={kind: _error(x) for kind, x in row.errors.items()})
            for row in model.sizes
        ],
        categories=[_class(x) for x in model.classes],
        worst_images=[[asdict(x) for x in images] for images in model.worst_images],
    )


def _segmenter(model: report_data.Model) -> dict:
    # Intervals of mAcc and aAcc are with the recalls over all sizes, which these two are.
    overall = dict(_values(model.overall), intervals=_intervals(dict(mIoU=model.overall['mIoU'])))
    return dict(
        name=model.name,
        path=model.path,
        totals=dict(model.counts, **overall),
        sizes=[
            dict(_range(row.size), inclusive=row.size.inclusive)
            | _row(row, intervals=_intervals(row.scores))
            for row in model.sizes
        ],
        classes=[_class(x) for x in model.classes],
        notices=model.notices,
    )


def _difference(difference: report_data.Difference) -> dict:
    names = dict(model=difference.model, minus=difference.minus)
    if not difference.overall:
        return dict(names, sizes=[_row(row) for row in difference.sizes])
    miou = dict(mIoU=difference.overall['mIoU'])
    sizes = [_row(row, intervals=_intervals(row.scores)) for row in difference.sizes]
    return dict(names, **_values(miou), intervals=_intervals(miou), sizes=sizes)


def _row(row: report_data.SizeRow, **further: object) -> dict:
    content = dict(name=row.size.name, **row.counts, **_values(row.scores), **further)
    intervals = _intervals(row.scores)
    return content | dict(intervals=intervals) if intervals else content


def _class(rows: report_data.ClassRows) -> dict:
    """A class of detectors has one score in a range, whose interval needs no name."""
    sizes = [dict(row.counts, **_values(row.scores)) for row in rows.sizes]
    for cell, row in zip(sizes, rows.sizes, strict=True):
        for interval in _intervals(row.scores).values():
            cell['interval'] = interval
    return dict(name=rows.name, **_values(rows.scores), **rows.counts, sizes=sizes)


def _error(error: report_data.ErrorCost) -> dict:
    count = {} if error.count is None else dict(count=error.count)
    return dict(cost=error.cost, **count)


def _range(size: SizeRange) -> dict:
    high = None if isinf(size.high) else size.high
    return dict(name=size.name, low=size.low, high=high, relative=size.relative)


def _values(scores: dict[str, report_data.Score]) -> dict:
    return {name: x.value for name, x in scores.items()}


def _intervals(scores: dict[str, report_data.Score]) -> dict:
    return {name: list(x.interval) for name, x in scores.items() if x.interval}
