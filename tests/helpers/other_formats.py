"""Random data in the formats of other frameworks, and by plain loops the same in COCO's."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

# The class indices of COCO's 80 classes -> ids, as Ultralytics' coco80_to_coco91_class has them.
LEFT_OUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO91 = [i for i in range(1, 91) if i not in LEFT_OUT]


@dataclass
class Sample:
    """Images with objects and detections in fractions.

    Attributes:
        sizes (dict): Path of an image -> (height, width).
        objects (dict): Path -> rows of [class, *fractions].
        found (dict): Path -> rows of [class, *fractions, confidence].
        num_classes (int): K.
    """

    sizes: dict[str, tuple[int, int]]
    objects: dict[str, list[list[float]]]
    found: dict[str, list[list[float]]]
    num_classes: int


def random_sample(
    seed: int, names: list[str] | None = None, num_classes: int = 3, polygons: bool = False
) -> Sample:
    """Objects of every size on images of odd sizes, one of which has none."""
    rng = np.random.default_rng(seed)
    names = names or [f'{x:012d}.jpg' for x in (139, 7, 25, 1000, 42, 8, 3, 90)]
    sizes = {x: tuple(int(y) for y in 2 * rng.integers(20, 180, 2) + 1) for x in names}
    objects, found = {x: [] for x in names}, {x: [] for x in names}
    for name in names[:-1]:
        for _ in range(rng.integers(2, 7)):
            number = int(rng.integers(num_classes))
            shape = _polygon(rng) if polygons else _box(rng)
            objects[name].append([number, *shape])
            if rng.random() < 0.8:
                moved = (np.array(shape) + rng.normal(0, 0.01, len(shape))).clip(0.001, 1)
                number = number if rng.random() < 0.8 else int(rng.integers(num_classes))
                found[name].append([number, *moved.tolist(), float(rng.random())])
        for number in (0, num_classes - 1):  # so that every way to count is told from the others
            shape = _polygon(rng) if polygons else _box(rng)
            found[name].append([number, *shape, float(rng.random())])
    return Sample(sizes, objects, found, num_classes)


def _box(rng: np.random.Generator) -> list[float]:
    w, h = (float(x) for x in rng.uniform(0.02, 0.5, 2))
    return [float(rng.uniform(w / 2, 1 - w / 2)), float(rng.uniform(h / 2, 1 - h / 2)), w, h]


def _polygon(rng: np.random.Generator) -> list[float]:
    x, y, w, h = _box(rng)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
    points = np.stack([x + np.cos(angles) * w / 2, y + np.sin(angles) * h / 2], axis=1)
    return points.clip(0, 1).flatten().tolist()


def write_images(folder: Path, sample: Sample) -> Path:
    for name, (height, width) in sample.sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (width, height)).save(path)
    return folder


def write_labels(folder: Path, rows: dict[str, list[list[float]]], digits: str = 'r') -> Path:
    """A file for each image that has rows; 'g' rounds as Ultralytics' '%g' does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        if lines:
            path = (folder / name).with_suffix('.txt')
            path.parent.mkdir(parents=True, exist_ok=True)
            text = [' '.join(f'{x:g}' if digits == 'g' else repr(x) for x in row) for row in lines]
            path.write_text('\n'.join(text) + '\n')
    return folder


def coco_content(sample: Sample, ids: list[int] | None = None) -> dict:
    """The ground truth in COCO's form, with these category ids (1 to K)."""
    ids = ids or list(range(1, sample.num_classes + 1))
    content = dict(images=[], annotations=[])
    content['categories'] = [dict(id=x, name=f'kind {k}') for k, x in enumerate(ids)]
    for i, (name, (height, width)) in enumerate(sorted(sample.sizes.items()), 101):
        content['images'].append(dict(id=i, file_name=name, height=height, width=width))
        for number, *shape in sample.objects[name]:
            record = dict(id=len(content['annotations']) + 1, image_id=i, category_id=ids[number])
            if len(shape) == 4:
                record['bbox'] = _pixels(shape, height, width)
                record['area'] = record['bbox'][2] * record['bbox'][3]
            else:
                polygon, record['bbox'] = _outline(shape, height, width)
                record['segmentation'] = [polygon]
                record['area'] = float(mask_utils.area(_encode(polygon, height, width)))
            content['annotations'].append(dict(record, iscrowd=0))
    return content


def coco_results(sample: Sample, ids: list[int] | None = None) -> list[dict]:
    """The detections in COCO's form, on the images of :func:`coco_content`."""
    ids = ids or list(range(1, sample.num_classes + 1))
    results = []
    for i, (name, (height, width)) in enumerate(sorted(sample.sizes.items()), 101):
        for number, *shape, score in sample.found[name]:
            record = dict(image_id=i, category_id=ids[number], score=score)
            if len(shape) == 4:
                record['bbox'] = _pixels(shape, height, width)
            else:
                polygon, record['bbox'] = _outline(shape, height, width)
                rle = _encode(polygon, height, width)
                record['segmentation'] = dict(size=rle['size'], counts=rle['counts'].decode())
            results.append(record)
    return results


def _pixels(shape: list[float], height: int, width: int) -> list[float]:
    x, y, w, h = shape
    return [x * width - w * width / 2, y * height - h * height / 2, w * width, h * height]


def _outline(shape: list[float], height: int, width: int) -> tuple[list[float], list[float]]:
    points = np.array(shape).reshape(-1, 2) * [width, height]
    low, high = points.min(axis=0), points.max(axis=0)
    return points.flatten().tolist(), [*low.tolist(), *(high - low).tolist()]


def _encode(polygon: list[float], height: int, width: int) -> dict:
    return mask_utils.merge(mask_utils.frPyObjects([polygon], height, width))


def as_predictions_json(results: list[dict], content: dict, has_file_names: bool = True) -> list:
    """COCO's results as ``DetectionValidator.pred_to_json`` of ultralytics 8.4.190 names them."""
    names = {x['id']: x['file_name'] for x in content['images']}
    records = []
    for result in results:
        path = Path(names[result['image_id']])
        stem = path.stem
        record = dict(image_id=int(stem) if stem.isnumeric() else stem)
        record.update(dict(file_name=path.name) if has_file_names else {})
        records.append(record | {k: v for k, v in result.items() if k != 'image_id'})
    return records


def as_box_lists(results: list[dict], content: dict) -> list[dict]:
    """COCO's results as torchvision's detectors return them, by ascending image id."""
    lists = []
    for image in content['images']:
        own = [x for x in results if x['image_id'] == image['id']]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (x['bbox'] for x in own)]
        entry = dict(boxes=boxes, labels=[x['category_id'] for x in own])
        entry['scores'] = [x['score'] for x in own]
        if own and 'segmentation' in own[0]:
            entry['masks'] = [x['segmentation'] for x in own]
        lists.append(entry)
    return lists


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path
