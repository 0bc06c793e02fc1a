"""What a report says, as data that detection and segmentation share.

Scores are fractions of 1. What does not exist, such as AP where there is no object, is None. A
list called ``sizes`` has a row for each range of the report. ``report/report_json.py`` says how
the files call all of this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np

from .resampling import Bootstrap
from .sizes import SizeRange


def known(number: float) -> float | None:
    """None for nan."""
    return None if isnan(number) else float(number)


@dataclass(frozen=True)
class Score:
    """A score of all images or a difference of two, and how far it would move on others.

    ``interval`` is low and high, each None where too few images have anything to score; it is
    None itself where no intervals were asked for.
    """

    value: float | None
    interval: tuple[float | None, float | None] | None = None

    @classmethod
    def of(cls, value: float, bounds: Sequence[float] | None = None) -> 'Score':
        """A score of numbers that are nan where there is no value."""
        return cls(known(value), None if bounds is None else tuple(map(known, bounds)))

    def minus(self, first: 'Score', bounds: Sequence[float] | None = None) -> 'Score':
        """The difference to a score on the same ground truth; ``bounds`` are its interval."""
        value = float('nan') if first.value is None else self.value - first.value
        return Score.of(value, bounds)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is all above or all below 0."""
        if self.interval is None or None in self.interval:
            return False
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class SizeRow:
    """One size range of a model, of one of its classes or of a difference.

    ``counts`` are of objects ('num_objects'), or of images, classes, segments and pixels.
    """

    size: SizeRange
    scores: dict[str, Score]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorCost:
    """AP50 that mending errors gains, and how many there are; None for errors of several types."""

    cost: float | None
    count: int | None


@dataclass(frozen=True, kw_only=True)
class DetectorRow(SizeRow):
    """AP, AP50, AP75 and AR of all classes in a range, and the cost of each type of error."""

    errors: dict[str, ErrorCost]


@dataclass(frozen=True)
class ClassRows:
    """A class; that of a segmenter has scores (IoU, Acc) and counts over all sizes too."""

    name: str
    sizes: list[SizeRow]
    scores: dict[str, Score] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is said of a detector or a segmenter.

    Attributes:
        name, path (str): What the report calls it, and where its results come from.
        notices (list[str]): What of its results does not count, or not as one may think.
        overall (dict[str, Score]): COCO's twelve numbers, or mIoU, mAcc and aAcc.
        counts (dict[str, int]): 'num_detections'; or 'images' and what of them counts nowhere.
    """

    name: str
    path: str
    notices: list[str]
    overall: dict[str, Score]
    counts: dict[str, int]
    sizes: list[SizeRow]
    classes: list[ClassRows]


@dataclass(frozen=True)
class Difference:
    """Scores of a model minus those of the one of the name ``minus``, on the same resamples.

    ``overall`` has mIoU, mAcc and aAcc of segmenters, and nothing of detectors.
    """

    model: str
    minus: str
    sizes: list[SizeRow]
    overall: dict[str, Score] = field(default_factory=dict)


def subtract(
    first: Model, other: Model, names: Iterable[str], intervals: dict[str, np.ndarray] | None
) -> list[SizeRow]:
    """Scores of these names of a model minus those of the first on the same ground truth.

    ``intervals`` map the names to low and high of the difference in each range, (A, 2).
    """
    rows = []
    for a, (theirs, ours) in enumerate(zip(first.sizes, other.sizes, strict=True)):
        scores = {}
        for name in names:
            bounds = intervals and intervals[name][a]
            scores[name] = ours.scores[name].minus(theirs.scores[name], bounds)
        rows.append(SizeRow(ours.size, scores))
    return rows


@dataclass(frozen=True, kw_only=True)
class Report:
    """Models on one ground truth; further ones are compared with the first.

    The first of the ranges has all sizes. Scores have intervals where there is a bootstrap.
    """

    ranges: list[SizeRange]
    bootstrap: Bootstrap | None
    models: list[Model]
    differences: list[Difference]


@dataclass(frozen=True)
class ShownObject:
    """An object as it is drawn: x, y, width and height in pixels, and whether it was found."""

    box: list[float]
    category: str
    found: bool


@dataclass(frozen=True)
class ShownDetection:
    """A false detection as it is drawn; ``type`` is None where it is false in one range alone."""

    box: list[float]
    category: str
    score: float
    type: str | None


@dataclass(frozen=True)
class WorstImage:
    """An image with errors: numbers of missed objects and false detections, and what to draw.

    The last four are what the annotations say of it; all but the id may be None.
    """

    missed: int
    false: int
    objects: list[ShownObject]
    detections: list[ShownDetection]
    id: int | str
    file_name: str | None
    height: int | None
    width: int | None


@dataclass(frozen=True, kw_only=True)
class Detector(Model):
    """A detector; the threshold is the score at which F1 over all sizes is best."""

    best_threshold: float
    best_f1: float
    worst_images: list[list[WorstImage]]


@dataclass(frozen=True)
class GroundTruthFacts:
    """What detectors are judged by."""

    path: str
    num_images: int
    num_objects: int
    categories: list[str]
    notices: list[str]


@dataclass(frozen=True, kw_only=True)
class DetectionReport(Report):
    """Detectors, judged by boxes ('bbox') or masks ('segm'); COCO's own ranges come first."""

    iou_type: str
    ground_truth: GroundTruthFacts
