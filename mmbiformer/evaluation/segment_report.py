"""What is known of segmenters by the size of segments, as plain data, as text and as CSV.

Letters: I images, K classes, A size ranges, of which the first has all sizes.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from math import isfinite

import numpy as np
from prettytable import PrettyTable

from .resampling import CONFIDENCE, Bootstrap
from .segment_files import FolderCounts
from .segment_sizes import BY_SIZE, SegmentCounts, images_by_size, score_intervals, scores, share
from .sizes import SizeRange

MISSING = 'n/a'  # as .tables, which needs COCO's evaluation and so is not imported here
ALL_CLASSES = 'all'
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


def segment_notices(report: dict) -> list[str]:
    """The notices that all models share once, and those of single ones with their name."""
    models = report['models']
    shared = [x for x in models[0]['notices'] if all(x in other['notices'] for other in models)]
    own = [
        f'{model["name"]}: {notice}'
        for model in models
        for notice in model['notices']
        if notice not in shared
    ]
    return shared + own


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in percent with two decimals, as mmseg shows it; 'n/a' where there is none."""
    if value is None:
        return MISSING
    rounded = round(100 * value, 2) + 0.0  # no minus before zero
    return f'{rounded:{"+" if signed else ""}.2f}'


def interval_percent(bounds: Sequence[float | None], signed: bool = False) -> str:
    """Both bounds in percent, in brackets."""
    if None in bounds:
        return MISSING
    return f'[{", ".join(percent(x, signed) for x in bounds)}]'


def segment_report_text(report: dict) -> str:
    """The tables of all models, and of their differences, in percent."""
    parts = [
        f'{x["name"]}: {x["path"]}, in percent\n{format_summary(x)}' for x in report['models']
    ]
    for difference in report['differences']:
        table = PrettyTable(['size', *(name.replace('_', ' ') for name in BY_SIZE)])
        table.align = 'r'
        table.align['size'] = 'l'
        for row in difference['sizes']:
            table.add_row([row['name'], *(_with_interval(row, name, True) for name in BY_SIZE)])
        overall = _with_interval(difference, 'mIoU', True)
        title = f'{difference["model"]} minus {difference["minus"]}, in points'
        parts.append(f'{title}\n{table.get_string()}\nmIoU {overall}')
    return '\n\n'.join(parts)


def format_summary(summary: dict) -> str:
    """The table of sizes of :func:`summarise`, in percent, and its notices."""
    columns = ('segments', 'images', 'pixels')
    table = PrettyTable(['size', *columns, *(name.replace('_', ' ') for name in BY_SIZE)])
    table.align = 'r'
    table.align['size'] = 'l'
    for row in summary['sizes']:
        counts = (f'{row[name]:,}' for name in columns)
        table.add_row([row['name'], *counts, *(_with_interval(row, name) for name in BY_SIZE)])
    overall = f'mIoU {_with_interval(summary["totals"], "mIoU")}'
    return '\n'.join([table.get_string(), LEGEND, overall, *summary['notices']])


def _with_interval(row: dict, score: str, signed: bool = False) -> str:
    text = percent(row[score], signed)
    if row[score] is None or score not in row['intervals']:
        return text
    shown = interval_percent(row['intervals'][score], signed)
    return f'{text} {f"[{MISSING}]" if shown == MISSING else shown}'


def segment_csv(report: dict) -> str:
    """One line per model, class and range; class 'all' is over all classes.

    IoU is of all sizes alone, and of class 'all' it is mIoU. 'n/a' is a value that does not exist;
    what is not computed for a line is empty. Areas are in pixels or, where relative, fractions of
    the image's; scores are fractions.
    """
    scores = [f'{name}{end}' for name in (*BY_SIZE, 'IoU') for end in ('', '_minus_first')]
    columns = [
        *('model', 'class', 'range', 'relative', 'area_low', 'area_high'),
        *('segments', 'images', 'pixels'),
        *(f'{name}{end}' for name in scores for end in ('', '_low', '_high')),
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    for line in _csv_lines(report):
        writer.writerow({key: MISSING if x is None else x for key, x in line.items()})
    return file.getvalue()


def _csv_lines(report: dict) -> Iterator[dict]:
    differences = {x['model']: x for x in report['differences']}
    for model in report['models']:
        parts = {'': model}
        if model['name'] in differences:
            parts['_minus_first'] = differences[model['name']]
        lines = [(ALL_CLASSES, [_csv_values(parts, a) for a in range(len(model['sizes']))])]
        for row in model['classes']:
            iou = [dict(IoU=row['IoU']), *({} for _ in row['sizes'][1:])]
            lines.append((row['name'], [x | y for x, y in zip(row['sizes'], iou, strict=True)]))
        for name, cells in lines:
            for size, values in zip(model['sizes'], cells, strict=True):
                yield {
                    'model': model['name'],
                    'class': name,
                    'range': size['name'],
                    'relative': size['relative'],
                    'area_low': size['low'],
                    'area_high': 'inf' if size['high'] is None else size['high'],
                    **values,
                }


def _csv_values(parts: dict[str, dict], a: int) -> dict:
    """Counts and scores of one range; ``parts`` maps an ending of columns to whose scores."""
    values = {key: parts['']['sizes'][a][key] for key in ('segments', 'images', 'pixels')}
    for end, part in parts.items():
        sources = {f'{name}{end}': (part['sizes'][a], name) for name in BY_SIZE}
        if not a:
            sources[f'IoU{end}'] = overall_scores(part), 'mIoU'
        for column, (source, key) in sources.items():
            values[column] = source[key]
            low, high = source['intervals'].get(key, ('', ''))
            values.update({f'{column}_low': low, f'{column}_high': high})
    return values


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
