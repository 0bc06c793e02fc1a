"""Everything that is known of detectors on one ground truth, by object size, as plain data.

:func:`size_report` puts it together; what is written or drawn of it is made from this alone.
A value that does not exist, such as AP where there is no object, is None.
"""

from collections.abc import Sequence
from math import isnan

import numpy as np
from tqdm import tqdm

from ..resampling import CONFIDENCE, MIN_IMAGES, Bootstrap, draw_weights, interval
from ..sizes import COCO_RANGES, SizeRange
from .bootstrap import KINDS, mean_ap, weighted_ap
from .coco_eval import IOU_THRESHOLDS, SizeEvaluation, evaluate
from .coco_files import Detections, GroundTruth
from .coco_summary import coco_summary, detection_notices, range_notices
from .matches import match
from .tide import SUMMARIES, TYPES, analyse_errors
from .worst_images import best_threshold, worst_images


def size_report(
    ground_truth: GroundTruth,
    models: dict[str, Detections],
    ranges: Sequence[SizeRange],
    iou_type: str = 'bbox',
    bootstrap: Bootstrap | None = None,
    progress: bool = False,
) -> dict:
    """Judge one or several detectors by object size.

    Args:
        ground_truth (GroundTruth): Of all of them.
        models (dict): name -> what it detected. Further ones are compared with the first.
        ranges (Sequence[SizeRange]): Besides COCO's own.
        iou_type (str): 'bbox' or 'segm'.
        bootstrap (Bootstrap, optional): Where given, AP comes with intervals; not where fewer
            than 5 images have objects, as their resamples differ too little.
        progress (bool): Show bars.

    Returns:
        dict: iou_type, ground_truth, ranges (COCO's first), bootstrap, models and differences.
    """
    weights = None
    if bootstrap:
        num_images = len(ground_truth.image_ids)
        drawn = draw_weights(num_images, bootstrap.num_resamples, bootstrap.seed)
        # All images once come first: what the intervals are of.
        weights = np.concatenate([np.ones_like(drawn[:, :1]), drawn], axis=1)
    parts, resampled = [], []
    for name, detections in models.items():
        if progress:
            tqdm.write(f'evaluating {name}: {len(detections.scores):,} detections')
        evaluation = evaluate(ground_truth, detections, ranges, iou_type)
        part, ap = _model(name, evaluation, weights, progress)
        parts.append(part)
        resampled.append(ap)
    pairs = zip(parts[1:], resampled[1:], strict=True)
    return dict(
        iou_type=iou_type,
        ground_truth=dict(
            path=ground_truth.path,
            num_images=len(ground_truth.image_ids),
            num_objects=int((~ground_truth.crowd).sum()),
            categories=ground_truth.category_names,
            notices=[*ground_truth.notices, *range_notices(evaluation)],
        ),
        ranges=[
            dict(
                name=x.name,
                low=x.low,
                high=None if np.isinf(x.high) else x.high,
                relative=x.relative,
                is_coco=x in COCO_RANGES,
            )
            for x in (*COCO_RANGES, *ranges)
        ],
        bootstrap=bootstrap
        and dict(
            num_resamples=bootstrap.num_resamples,
            seed=bootstrap.seed,
            confidence=CONFIDENCE,
            min_images=MIN_IMAGES,
        ),
        models=parts,
        differences=[_difference(parts[0], resampled[0], part, ap) for part, ap in pairs],
    )


def _model(
    name: str, evaluation: SizeEvaluation, weights: np.ndarray | None, progress: bool
) -> tuple[dict, np.ndarray | None]:
    """What is said of one model; and its AP, of all images and resampled, (3, A, 1 + W)."""
    # Without resamples only the errors need matches, and those at 0.5.
    thresholds = (0.5,) if weights is None else tuple(IOU_THRESHOLDS)
    matches = match(evaluation, thresholds, progress)
    errors = analyse_errors(evaluation, matches)
    threshold, f1 = best_threshold(evaluation, matches)
    resampled, bounds, category_bounds = None, None, None
    if weights is not None:
        by_category = weighted_ap(evaluation, matches, weights, progress)
        resampled = mean_ap(by_category)
        in_range, in_category = _num_images(evaluation)
        bounds = _where(in_range >= MIN_IMAGES, _interval(resampled))
        category_bounds = _where(in_category >= MIN_IMAGES, _interval(by_category[0]))

    ap, ar = evaluation.average_precision, evaluation.average_recall
    sizes = []
    for a, size in enumerate(evaluation.ranges):
        row = dict(
            name=size.name,
            num_objects=int(evaluation.num_objects[:, a].sum()),
            AP=_value(ap(a)),
            AP50=_value(ap(a, 0.5)),
            AP75=_value(ap(a, 0.75)),
            AR=_value(ar(a)),
            errors={x: dict(cost=_value(errors.cost[x][a])) for x in (*TYPES, *SUMMARIES)},
        )
        for kind in TYPES:
            row['errors'][kind]['count'] = int(errors.counts[kind][a])
        if bounds:
            row['intervals'] = {
                kind: [_value(bound[i, a]) for bound in bounds] for i, kind in enumerate(KINDS)
            }
        sizes.append(row)
    categories = []
    for k, category in enumerate(evaluation.ground_truth.category_names):
        row = dict(
            name=category,
            sizes=[
                dict(num_objects=int(evaluation.num_objects[k, a]), AP=_value(ap(a, category=k)))
                for a in range(len(evaluation.ranges))
            ],
        )
        if category_bounds:
            for a, cell in enumerate(row['sizes']):
                cell['interval'] = [_value(bound[a, k]) for bound in category_bounds]
        categories.append(row)
    worst = worst_images(evaluation, matches, errors, threshold)
    for image in (image for of_range in worst for image in of_range):
        record = evaluation.ground_truth.images[image.pop('image')]
        image.update({key: record.get(key) for key in ('id', 'file_name', 'height', 'width')})
    part = dict(
        name=name,
        path=evaluation.detections.path,
        num_detections=len(evaluation.detections.scores),
        notices=detection_notices(evaluation),
        coco={key: _value(x) for key, x in coco_summary(evaluation).items()},
        best_threshold=threshold,
        best_f1=f1,
        sizes=sizes,
        categories=categories,
        worst_images=worst,
    )
    return part, resampled


def _num_images(evaluation: SizeEvaluation) -> tuple[np.ndarray, np.ndarray]:
    """How many images have objects in each range, (A, ), and of each category, (A, K)."""
    ground_truth = evaluation.ground_truth
    of_category = np.zeros((len(evaluation.ranges), len(ground_truth.category_ids)), np.int64)
    of_range = np.zeros(len(evaluation.ranges), np.int64)
    for a, held in enumerate(evaluation.object_in_range):
        pairs = np.stack([ground_truth.category[held], ground_truth.image[held]])
        of_range[a] = len(np.unique(pairs[1]))
        categories = np.unique(pairs, axis=1)[0]
        of_category[a] = np.bincount(categories, minlength=of_category.shape[1])
    return of_range, of_category


def _interval(values: np.ndarray, is_difference: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return interval(values[..., 1:], values[..., 0], is_difference)


def _where(known: np.ndarray, bounds: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.where(known, bound, np.nan) for bound in bounds]


def _difference(
    first: dict, first_ap: np.ndarray | None, other: dict, other_ap: np.ndarray | None
) -> dict:
    """AP of a model minus that of the first, on the same resamples."""
    sizes = []
    for a, (row, own) in enumerate(zip(first['sizes'], other['sizes'], strict=True)):
        cell = dict(name=row['name'])
        for kind in KINDS:
            known = row[kind] is not None
            cell[kind] = own[kind] - row[kind] if known else None
        if first_ap is not None:
            low, high = _interval(other_ap[:, a] - first_ap[:, a], True)
            is_known = None not in row['intervals']['AP']
            cell['intervals'] = {
                kind: [_value(low[i]), _value(high[i])] if is_known else [None, None]
                for i, kind in enumerate(KINDS)
            }
        sizes.append(cell)
    return dict(model=other['name'], minus=first['name'], sizes=sizes)


def _value(number: float) -> float | None:
    return None if isnan(number) else float(number)
