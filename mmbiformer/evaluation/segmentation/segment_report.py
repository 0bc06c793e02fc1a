"""What is known of segmenters by the size of segments, as plain data.

Letters: I images, K classes, A size ranges, of which the first has all sizes.
"""

from collections.abc import Sequence
from math import isfinite

import numpy as np

from ..resampling import CONFIDENCE, MIN_IMAGES, Bootstrap
from ..sizes import SizeRange
from .segment_files import FolderCounts
from .segment_sizes import BY_SIZE, SegmentCounts, images_by_size, score_intervals, scores, share


def segment_report(
    folders: dict[str, FolderCounts],
    ranges: Sequence[SizeRange],
    class_names: Sequence[str],
    bootstrap: Bootstrap | None = None,
) -> dict:
    """Judge one or several segmenters; further ones are compared with the first.

    Args:
        folders (dict): name -> what :func:`count_folders` returned.
        ranges (Sequence[SizeRange]): The A ranges that they were counted in.
        class_names (Sequence[str]): K names.
        bootstrap (Bootstrap, optional): Where given, scores come with intervals.

    Returns:
        dict: bootstrap; models, each a name, a path and :func:`summarise`; and differences, of
        totals' mIoU and of the scores of each range.
    """
    settings = (bootstrap.num_resamples, bootstrap.seed) if bootstrap else None
    models, differences = [], []
    first = None
    for name, folder in folders.items():
        intervals = score_intervals(folder.counts, *settings) if settings else None
        summary = summarise(folder.counts, ranges, class_names, intervals, folder.notices)
        models.append(dict(name=name, path=folder.path, **summary))
        if first is None:
            first = folder
            continue
        paired = score_intervals(folder.counts, *settings, first.counts) if settings else {}
        differences.append(_difference(models[0], models[-1], _plain(paired)))
    return dict(
        bootstrap=bootstrap
        and dict(
            num_resamples=bootstrap.num_resamples,
            seed=bootstrap.seed,
            confidence=CONFIDENCE,
            min_images=MIN_IMAGES,
        ),
        models=models,
        differences=differences,
    )


def _difference(first: dict, other: dict, intervals: dict) -> dict:
    """Scores of a model minus those of the first, on the same resamples."""
    pairs = zip(first['sizes'], other['sizes'], strict=True)
    return dict(
        model=other['name'],
        minus=first['name'],
        mIoU=_minus(other['totals'], first['totals'], 'mIoU'),
        intervals={name: x for name, x in intervals.items() if name not in BY_SIZE},
        sizes=[
            dict(
                name=theirs['name'],
                **{score: _minus(ours, theirs, score) for score in BY_SIZE},
                intervals={name: x[a] for name, x in intervals.items() if name in BY_SIZE},
            )
            for a, (theirs, ours) in enumerate(pairs)
        ],
    )


def _minus(row: dict, other: dict, score: str) -> float | None:
    """None where the ground truth, which is the same, has nothing to take a share of."""
    return None if other[score] is None else row[score] - other[score]


def summarise(
    counts: SegmentCounts,
    ranges: Sequence[SizeRange],
    class_names: Sequence[str],
    intervals: dict[str, np.ndarray] | None = None,
    notices: Sequence[str] = (),
) -> dict:
    """Everything that a table or report shows, in types of JSON.

    Args:
        counts (SegmentCounts): Stacked, (I, ...).
        ranges (Sequence[SizeRange]): The A ranges that they were counted in.
        class_names (Sequence[str]): K names.
        intervals (dict, optional): What :func:`score_intervals` returned.
        notices (Sequence[str]): Further ones, put before those that the counts give.

    Returns:
        dict: ``totals``; ``sizes``, a row for each range, the first for all sizes; ``classes``, a
        row for each class, whose ``sizes`` are in the same order; ``notices``, what was left out.
        Scores are fractions, None where there is nothing to take a share of. ``intervals`` of
        totals and sizes map a score to [low, high], and are empty where none were given. A row of
        ``sizes`` begins with the attributes of its :class:`SizeRange`; a ``high`` of None is no
        end.
    """
    total, images = counts.total(), images_by_size(counts)
    values = scores(total)
    intervals = intervals or {}
    sizes = [
        dict(
            **vars(x),
            images=images[a],
            classes=np.count_nonzero(total.segments[:, a]),
            segments=total.segments[:, a].sum(),
            pixels=total.pixels[:, a].sum(),
            **{name: values[name][a] for name in BY_SIZE},
            intervals={name: x[a] for name, x in intervals.items() if name in BY_SIZE},
        )
        for a, x in enumerate(ranges)
    ]
    totals = dict(
        images=len(counts.ignored),
        ignored_pixels=total.ignored,
        unpredicted_pixels=total.unpredicted,
        outside_segments=total.outside,
        mIoU=values['mIoU'],
        mAcc=values['class_recall'][0],
        aAcc=values['pixel_recall'][0],
        intervals={name: x for name, x in intervals.items() if name not in BY_SIZE},
    )
    by_class = dict(
        segments=total.segments,
        pixels=total.pixels,
        pixel_recall=values['recall'],
        segments_found=values['found'],
    )
    classes = [
        dict(
            name=name,
            IoU=values['IoU'][k],
            Acc=values['recall'][k, 0],
            predicted_pixels=total.predicted[k],
            sizes=[{key: x[k, a] for key, x in by_class.items()} for a in range(len(ranges))],
        )
        for k, name in enumerate(class_names)
    ]
    parts = dict(totals=totals, sizes=sizes, classes=classes, notices=[*notices, *_notices(total)])
    return _plain(parts)


def ranges_of(report: dict) -> list[dict]:
    """The ranges of a segment report as :func:`size_report` has them, the first of all sizes."""
    keys = ('name', 'low', 'high', 'relative')
    rows = report['models'][0]['sizes']
    return [dict({key: row[key] for key in keys}, is_coco=False) for row in rows]


def overall_scores(part: dict) -> dict:
    """mIoU, mAcc, aAcc and their intervals of a model or a difference of the report."""
    overall, row = part.get('totals', part), part['sizes'][0]
    sources = dict(mIoU=(overall, 'mIoU'), mAcc=(row, 'class_recall'), aAcc=(row, 'pixel_recall'))
    return dict(
        {name: source[key] for name, (source, key) in sources.items()},
        intervals={
            name: source['intervals'][key]
            for name, (source, key) in sources.items()
            if key in source['intervals']
        },
    )


def _notices(total: SegmentCounts) -> list[str]:
    labelled = total.pixels[:, 0]
    ignored = f'{share(total.ignored, total.ignored + labelled.sum()):.1%}'
    false = np.count_nonzero((labelled == 0) & (total.predicted > 0))
    facts = [
        (total.ignored, f'pixels ({ignored}) are ignored by the ground truth, and count nowhere'),
        (total.unpredicted, 'pixels are predicted as no class, and are wrong'),
        (total.outside, 'segments are in no size range'),
        (false, 'predicted classes are not in the ground truth; their IoU of 0 enters mIoU'),
    ]
    return [f'{count:,} {fact}' for count, fact in facts if count]


def _plain(value: object) -> object:
    """The same in types of JSON, which knows neither nan nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and not isfinite(value) else value
