"""What predictions are written to: annotated pictures or a video, COCO results, label maps."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine.infer import BaseInferencer
from PIL import Image

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.formats.reading import read_ground_truth
from mmbiformer.files import whole_or_absent

from .sources import Capture, Frame, ImageFiles

CODEC = 'mp4v'  # MPEG-4; OpenCV's own builds have no encoder of H.264


class CocoResults:
    """Detections in COCO's result format.

    Args:
        source (ImageFiles | Capture): What is predicted on.
        inferencer (BaseInferencer): mmdet's, whose model has ``dataset_meta``.
        annotations (str, optional): COCO file with the ids of images and categories. By default
            images are numbered in their order and classes in theirs, both from 1 on.

    Raises:
        UserError: If the file lacks an image or a class, or cannot tell two images apart.
    """

    def __init__(
        self,
        source: ImageFiles | Capture,
        inferencer: BaseInferencer,
        annotations: str | None = None,
    ) -> None:
        self.inferencer = inferencer
        self.records: list[dict] = []
        self.images: list[dict] = []
        classes = inferencer.model.dataset_meta['classes']
        self.image_ids = None
        self.category_ids = list(range(1, len(classes) + 1))
        if annotations:
            if isinstance(source, Capture):
                raise UserError('--annotations is for images')
            self.image_ids, self.category_ids = _read_ids(annotations, source.paths, classes)
        self.categories = [
            dict(id=i, name=name) for i, name in zip(self.category_ids, classes, strict=True)
        ]

    def add(self, frame: Frame, prediction: object) -> None:
        """Take up the objects of a picture."""
        height, width = frame.image.shape[:2]
        image_id = self.image_ids[frame.name] if self.image_ids else len(self.images) + 1
        self.images.append(dict(id=image_id, file_name=frame.name, width=width, height=height))
        found = self.inferencer.pred2dict(prediction)
        masks = found.get('masks', [None] * len(found['labels']))
        columns = found['bboxes'], found['labels'], found['scores'], masks
        for (x0, y0, x1, y1), label, score, mask in zip(*columns, strict=True):
            record = dict(
                image_id=image_id,
                category_id=self.category_ids[label],
                bbox=[x0, y0, x1 - x0, y1 - y0],
                score=score,
            )
            self.records.append(record if mask is None else {**record, 'segmentation': mask})

    def write(self, out_dir: Path) -> list[Path]:
        """Write ``predictions.json`` and, where the numbering is its own, ``images.json``."""
        contents = {'predictions.json': self.records}
        if not self.image_ids:
            listed = dict(images=self.images, annotations=[], categories=self.categories)
            contents['images.json'] = listed
        for name, content in contents.items():
            with whole_or_absent(out_dir / name) as unfinished:
                unfinished.write_text(json.dumps(content), encoding='utf-8')
        return [out_dir / name for name in contents]


class LabelMaps:
    """Label maps as PNG files, written one by one.

    Values are those of the ground truth: with ``reduce_zero_label`` class 0 is 1.

    Args:
        source (ImageFiles | Capture): What is predicted on.
        folder (Path): Where they go, under the names of the images.
        reduce_zero_label (bool): Of the dataset.

    Raises:
        UserError: If two images would have the same map, or a map is there.
    """

    def __init__(
        self, source: ImageFiles | Capture, folder: Path, reduce_zero_label: bool
    ) -> None:
        self.folder, self.first = folder, int(reduce_zero_label)
        if isinstance(source, ImageFiles):
            (name, count), *_ = Counter(x.stem for x in source.paths).most_common(1)
            if count > 1:
                raise UserError(
                    f"{count} images are called '{name}', and their label maps would be one file: "
                    'rename them'
                )
            # Ground truth is often in a folder of this name, under names of images.
            if there := [x for x in source.paths if (folder / f'{x.stem}.png').exists()]:
                raise UserError(
                    f"'{folder / there[0].stem}.png' is there: choose another --out-dir"
                )

    def add(self, frame: Frame, prediction: object) -> None:
        """Write the map of a picture."""
        labels = prediction.pred_sem_seg.data[0].cpu().numpy() + self.first
        name = Path(frame.name).stem if frame.path else frame.name
        with whole_or_absent(self.folder / f'{name}.png') as unfinished:
            Image.fromarray(labels.astype(np.uint8)).save(unfinished)

    def write(self, _: Path) -> list[Path]:
        """The folder, which has them all."""
        return [self.folder]


class Pictures:
    """Annotated pictures under the names of the images, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    def add(self, frame: Frame, drawn: np.ndarray) -> None:
        """Write one, (H, W, 3) with blue first."""
        with whole_or_absent(self.path / frame.name) as unfinished:
            cv2.imwrite(str(unfinished), drawn)


class Video:
    """An annotated video; to be filled within :func:`video`."""

    def __init__(self, path: Path, unfinished: Path, fps: float) -> None:
        self.path, self._unfinished, self._fps = path, unfinished, fps
        self._writer = None

    def add(self, _: Frame, drawn: np.ndarray) -> None:
        """Append a picture, (H, W, 3) with blue first; all are of one size."""
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*CODEC)
            size = drawn.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self._unfinished), code, self._fps, size)
            if not self._writer.isOpened():
                raise UserError(
                    f'this OpenCV writes no {CODEC} video: install its wheel from PyPI'
                )
        self._writer.write(drawn)

    def close(self) -> None:
        """Have the file whole."""
        self._writer.release()


@contextmanager
def video(path: Path, fps: float) -> Iterator[Video]:
    """A video that has its name when the block is done, and is absent if the block fails."""
    with whole_or_absent(path) as unfinished:
        yield (made := Video(path, unfinished, fps))
        made.close()


def _read_ids(
    annotations: str, paths: Sequence[Path], classes: Sequence[str]
) -> tuple[dict[str, object], list]:
    """The ids of images by their names, and of classes, that a COCO file gives."""
    truth = read_ground_truth(annotations)
    names = [Path(x['file_name']).name for x in truth.images]
    ids = dict(zip(names, truth.image_ids, strict=True))
    counts = Counter(names)
    for path in paths:
        if counts[path.name] != 1:
            raise UserError(
                f"'{annotations}' has {counts[path.name]} records of '{path.name}': choose "
                'the file that belongs to the images'
            )
    known = dict(zip(truth.category_names, truth.category_ids, strict=True))
    if missing := [x for x in classes if x not in known]:
        raise UserError(
            f"'{annotations}' has no category '{missing[0]}', which is a class of the model: "
            'choose the file that belongs to it'
        )
    return ids, [known[x] for x in classes]
