"""What is known of segmenters by the size of segments.

Letters: I images, K classes, A size ranges, of which the first has all sizes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..report_data import ClassRows, Difference, Model, Report, Score, SizeRow, subtract
from ..resampling import Bootstrap
from ..sizes import SizeRange
from .segment_files import FolderCounts
from .segment_sizes import BY_SIZE, SegmentCounts, images_by_size, score_intervals, scores, share


def segment_report(
    folders: dict[str, FolderCounts],
    ranges: Sequence[SizeRange],
    class_names: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Judge one or several segmenters; further ones are compared with the first.

    Args:
        folders (dict): name -> what :func:`count_folders` returned.
        ranges (Sequence[SizeRange]): The A ranges that they were counted in.
        class_names (Sequence[str]): K names.
        bootstrap (Bootstrap, optional): Where given, scores come with intervals.
    """
    models, differences = [], []
    first, *_ = folders.values()
    for name, folder in folders.items():
        intervals = score_intervals(folder.counts, bootstrap) if bootstrap else None
        summary = summarise(folder.counts, ranges, class_names, intervals, folder.notices)
        models.append(replace(summary, name=name, path=folder.path))
        if folder is not first:
            paired = score_intervals(folder.counts, bootstrap, first.counts) if bootstrap else None
            differences.append(_difference(models[0], models[-1], paired))
    return Report(ranges=list(ranges), bootstrap=bootstrap, models=models, differences=differences)


def _difference(first: Model, other: Model, intervals: dict | None) -> Difference:
    """Scores of a model minus those of the first, with the intervals of these differences."""
    sizes = subtract(first, other, BY_SIZE, intervals)
    bounds = intervals and intervals['mIoU']
    miou = other.overall['mIoU'].minus(first.overall['mIoU'], bounds)
    return Difference(other.name, first.name, sizes, _overall(miou, sizes[0]))


def summarise(
    counts: SegmentCounts,
    ranges: Sequence[SizeRange],
    class_names: Sequence[str],
    intervals: dict[str, np.ndarray] | None = None,
    notices: Sequence[str] = (),
) -> Model:
    """Everything that a table or report shows of one segmenter but its name and path.

    Args:
        counts (SegmentCounts): Stacked, (I, ...).
        ranges, class_names: As of :func:`segment_report`.
        intervals (dict, optional): What :func:`score_intervals` returned.
        notices (Sequence[str]): Further ones, put before those that the counts give.
    """
    total, images = counts.total(), images_by_size(counts)
    values = scores(total)

    def score(name: str, *position: int) -> Score:
        return Score.of(values[name][position], intervals and intervals[name][position])

    sizes = []
    for a, size in enumerate(ranges):
        numbers = dict(
            images=int(images[a]),
            classes=np.count_nonzero(total.segments[:, a]),
            segments=int(total.segments[:, a].sum()),
            pixels=int(total.pixels[:, a].sum()),
        )
        sizes.append(SizeRow(size, {name: score(name, a) for name in BY_SIZE}, numbers))
    classes = []
    for k, class_name in enumerate(class_names):
        rows = [
            SizeRow(
                size=size,
                scores=dict(
                    pixel_recall=Score.of(values['recall'][k, a]),
                    segments_found=Score.of(values['found'][k, a]),
                ),
                counts=dict(segments=int(total.segments[k, a]), pixels=int(total.pixels[k, a])),
            )
            for a, size in enumerate(ranges)
        ]
        overall = dict(IoU=Score.of(values['IoU'][k]), Acc=rows[0].scores['pixel_recall'])
        predicted = dict(predicted_pixels=int(total.predicted[k]))
        classes.append(ClassRows(class_name, rows, overall, predicted))
    return Model(
        name='',
        path='',
        notices=[*notices, *_notices(total)],
        overall=_overall(score('mIoU'), sizes[0]),
        counts=dict(
            images=len(counts.ignored),
            ignored_pixels=int(total.ignored),
            unpredicted_pixels=int(total.unpredicted),
            outside_segments=int(total.outside),
        ),
        sizes=sizes,
        classes=classes,
    )


def _overall(miou: Score, all_sizes: SizeRow) -> dict[str, Score]:
    """mmseg's three numbers: two of them are recalls over all sizes."""
    recalls = all_sizes.scores
    return dict(mIoU=miou, mAcc=recalls['class_recall'], aAcc=recalls['pixel_recall'])


def _notices(total: SegmentCounts) -> list[str]:
    labelled = total.pixels[:, 0]
    ignored = f'{share(total.ignored, total.ignored + labelled.sum()):.1%}'
    num_false = np.count_nonzero((labelled == 0) & (total.predicted > 0))
    facts = [
        (total.ignored, f'pixels ({ignored}) are ignored by the ground truth, and count nowhere'),
        (total.unpredicted, 'pixels are predicted as no class, and are wrong'),
        (total.outside, 'segments are in no size range'),
        (num_false, 'predicted classes are not in the ground truth; their IoU of 0 enters mIoU'),
    ]
    return [f'{count:,} {fact}' for count, fact in facts if count]
