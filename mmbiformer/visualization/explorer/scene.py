"""What is in an image: what a model predicts, what is true, and which objects it misses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_masks

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.formats.reading import read_ground_truth
from mmbiformer.evaluation.segmentation.segment_files import read_map

from ..folders import check_recorded_once
from ..look import Box

IOU = 0.5  # from which an object is found


@dataclass
class Thing:
    """An object of an image, or a detection.

    Attributes:
        box (Box): Left, top, right and bottom in pixels of the image.
        label (str): Its class.
        score (float, optional): Of a detection.
    """

    box: Box
    label: str
    score: float | None = None


@dataclass
class Scene:
    """Things of an image, or a label map of it, or one label for the whole of it.

    Attributes:
        things (list[Thing]): None of a segmenter or classifier.
        labels (np.ndarray, optional): Indices of classes (H, W), of a segmenter.
        text (str): What a classifier says.
    """

    things: list[Thing]
    labels: np.ndarray | None = None
    text: str = ''


def predicted(sample, classes: Sequence[str], threshold: float) -> Scene:
    """What the data sample of a detector, a segmenter or a classifier says.

    Args:
        sample: As ``model.test_step`` gives it.
        classes (Sequence[str]): Names.
        threshold (float): Least score of detections.
    """
    if 'pred_sem_seg' in sample:
        return Scene([], labels=sample.pred_sem_seg.data[0].cpu().numpy())
    if 'pred_instances' not in sample:
        score, label = sample.pred_score.max(-1)
        return Scene([], text=f'{classes[label]}, {100 * score:.1f} %')
    found = sample.pred_instances.cpu()
    things = [
        Thing(tuple(box), classes[label], score)
        for box, label, score in zip(
            found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
        if score >= threshold
    ]
    return Scene(things)


def read_truth(path: str, images: Sequence[Path], meta: Mapping) -> dict[str, Scene]:
    """What is in images, by their names: from a COCO file, or a folder of label maps.

    Args:
        path (str): The folder has a PNG file for each image, of its name but for the suffix.
        images (Sequence[Path]): Image files.
        meta (Mapping): Of the data set: 'classes' and, of label maps, 'reduce_zero_label'.

    Raises:
        UserError: If it is neither, or lacks an image.
    """
    if not Path(path).is_dir():
        return _read_objects(path, images)
    files = {x.name: Path(path, f'{x.stem}.png') for x in images}
    check_recorded_once(path, [name for name, file in files.items() if file.is_file()], images)
    reduced = bool(meta.get('reduce_zero_label'))
    number = len(meta['classes'])
    return {x: Scene([], labels=read_map(file, number, reduced)) for x, file in files.items()}


def _read_objects(path: str, images: Sequence[Path]) -> dict[str, Scene]:
    truth = read_ground_truth(path)
    names = [Path(x['file_name']).name for x in truth.images]
    check_recorded_once(path, names, images)
    scenes = {name: Scene([]) for name in names}
    for image, box, category, is_crowd in zip(
        truth.image, truth.boxes, truth.category, truth.crowd, strict=True
    ):
        if not is_crowd:
            x, y, width, height = box.tolist()
            thing = Thing((x, y, x + width, y + height), truth.category_names[category])
            scenes[names[image]].things.append(thing)
    return scenes


def check_truth(truth: Scene, found: Scene, classes: Sequence[str], model: str) -> None:
    """Refuse ground truth of another task, or of classes that a model does not know.

    Raises:
        UserError: As all objects would be missed.
    """
    is_detector = found.labels is None and not found.text
    if found.text or is_detector != (truth.labels is None):
        raise UserError(
            f'--annotations does not fit {model}: give a COCO file to a detector, a folder of '
            'label maps to a segmenter, nothing to a classifier'
        )
    unknown = sorted({x.label for x in truth.things} - set(classes))
    if unknown:
        raise UserError(f"--annotations has the class '{unknown[0]}', which {model} does not know")


def find_missed(truth: Sequence[Thing], found: Sequence[Thing]) -> list[bool]:
    """Whether no detection of its class overlaps an object by half; each counts for one alone."""
    missed = [True] * len(truth)
    if not truth or not found:
        return missed
    boxes = [np.array([_as_coco(x.box) for x in things]) for things in (found, truth)]
    overlaps = coco_masks.iou(*boxes, [0] * len(truth))
    for i in sorted(range(len(found)), key=lambda i: -found[i].score):
        same = [missed[j] and truth[j].label == found[i].label for j in range(len(truth))]
        candidates = np.where(same, overlaps[i], 0)
        if candidates.max() >= IOU:
            missed[candidates.argmax()] = False
    return missed


def _as_coco(box: Box) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
