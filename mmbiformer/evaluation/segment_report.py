"""What is known of segmenters by the size of segments, as plain data and as text.

Letters: I images, K classes, A size ranges, of which the first has all sizes.
"""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from prettytable import PrettyTable

from .resampling import CONFIDENCE, Bootstrap
from .segment_files import FolderCounts
from .segment_sizes import BY_SIZE, SegmentCounts, images_by_size, score_intervals, scores, share
from .sizes import SizeRange

LEGEND = (
    'segments are 8-connected; pixel recall: share of all their pixels that are right; class '
    'recall: mean of that share over classes; segments found: at least half of the pixels right'
)


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
            num_resamples=bootstrap.num_resamples, seed=bootstrap.seed, confidence=CONFIDENCE
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
        mIoU=other['totals']['mIoU'] - first['totals']['mIoU'],
        intervals={name: x for name, x in intervals.items() if name not in BY_SIZE},
        sizes=[
            dict(
                name=theirs['name'],
                **{
                    name: None if theirs[name] is None else ours[name] - theirs[name]
                    for name in BY_SIZE
                },
                intervals={name: x[a] for name, x in intervals.items() if name in BY_SIZE},
            )
            for a, (theirs, ours) in enumerate(pairs)
        ],
    )


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


def segment_report_text(report: dict) -> str:
    """The tables of all models, and of their differences, in percent."""
    parts = [f'{x["name"]}: {x["path"]}\n{format_summary(x)}' for x in report['models']]
    for difference in report['differences']:
        table = PrettyTable(['size', *(name.replace('_', ' ') for name in BY_SIZE)])
        table.align = 'r'
        for row in difference['sizes']:
            intervals = row['intervals']
            cells = [_percent(row[name], intervals.get(name, ()), '+') for name in BY_SIZE]
            table.add_row([row['name'], *cells])
        overall = _percent(difference['mIoU'], difference['intervals'].get('mIoU', ()), '+')
        title = f'{difference["model"]} minus {difference["minus"]}'
        parts.append(f'{title}\n{table.get_string()}\nmIoU {overall}')
    return '\n\n'.join(parts)


def format_summary(summary: dict) -> str:
    """The table of sizes of :func:`summarise`, in percent, and its notices."""
    columns = ('segments', 'images', 'pixels')
    table = PrettyTable(['size', *columns, *(name.replace('_', ' ') for name in BY_SIZE)])
    table.align = 'r'
    table.align['size'] = 'l'
    for row in summary['sizes']:
        cells = [_percent(row[name], row['intervals'].get(name, ())) for name in BY_SIZE]
        table.add_row([row['name'], *(f'{row[name]:,}' for name in columns), *cells])
    totals = summary['totals']
    overall = f'mIoU {_percent(totals["mIoU"], totals["intervals"].get("mIoU", ()))}'
    return '\n'.join([table.get_string(), LEGEND, overall, *summary['notices']])


def _percent(value: float | None, bounds: Sequence[float | None] = (), sign: str = '') -> str:
    if value is None:
        return 'n/a'
    shown = 'n/a' if None in bounds else ', '.join(f'{100 * x:{sign}.2f}' for x in bounds)
    return f'{100 * value:{sign}.2f}' + (f' [{shown}]' if shown else '')


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
