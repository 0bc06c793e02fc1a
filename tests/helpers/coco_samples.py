"""Random ground truth and detections in COCO's formats, with what evaluations get wrong."""

import numpy as np
from pycocotools import mask as mask_utils

# Areas on the bounds of COCO's ranges and of octaves, and beside them.
SIDES = (4, 8, 16, 31, 32, 33, 64, 95, 96, 97, 128)


def random_coco(
    rng: np.random.Generator,
    num_images: int = 3,
    num_categories: int = 3,
    objects_per_image: float = 4,
    detections_per_image: float = 8,
    image_size: int = 200,
    crowds: float = 0.1,
) -> tuple[dict, list[dict]]:
    """Annotations and results; some categories and images are empty, scores are tied."""
    categories = [dict(id=3 * k + 1, name=f'kind {k}') for k in range(num_categories)]
    used = rng.permutation(num_categories)[: max(1, num_categories - 1)]
    images, annotations, results = [], [], []
    for i in rng.permutation(num_images):
        image_id = int(i) * 7 + 2
        images.append(
            dict(id=image_id, height=image_size, width=image_size, file_name=f'{image_id}.jpg')
        )
        boxes, kinds = _boxes(rng, rng.poisson(objects_per_image), image_size), []
        for box in boxes:
            kinds.append(int(rng.choice(used)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=categories[kinds[-1]]['id'],
                    bbox=box,
                    # COCO's area is the mask's: at times less than the box's.
                    area=box[2] * box[3] * float(rng.choice([1, 1, 0.5])),
                    iscrowd=int(rng.random() < crowds),
                )
            )
        for _ in range(rng.poisson(detections_per_image)):
            kind = int(rng.integers(num_categories))
            if boxes and rng.random() < 0.7:
                chosen = int(rng.integers(len(boxes)))
                kind = kinds[chosen] if rng.random() < 0.8 else kind
                shift = rng.normal(0, 0.08, 4) * np.array(boxes[chosen])[[2, 3, 2, 3]]
                shift[2:] = shift[2:].clip(-0.5 * np.array(boxes[chosen][2:]), None)
                exact = rng.random() < 0.2
                box = (np.array(boxes[chosen]) + (0 if exact else shift)).tolist()
            else:
                box = _boxes(rng, 1, image_size)[0]
            results.append(
                dict(
                    image_id=image_id,
                    category_id=categories[kind]['id'],
                    bbox=box,
                    score=round(float(rng.random()), 1 + int(rng.integers(3))),
                )
            )
    content = dict(images=images, annotations=annotations, categories=categories)
    return content, results


def with_masks(content: dict, results: list[dict]) -> tuple[dict, list[dict]]:
    """The same with masks for boxes, some chipped; results without bbox, as from mmdet."""
    sizes = {x['id']: (x['height'], x['width']) for x in content['images']}
    annotations = []
    for record in content['annotations']:
        rle = _mask(record['bbox'], sizes[record['image_id']], record['id'] % 3 == 0)
        area = float(mask_utils.area(rle))
        annotations.append({**record, 'segmentation': _as_text(rle), 'area': area})
    masked = []
    for i, record in enumerate(results):
        rle = _mask(record['bbox'], sizes[record['image_id']], i % 4 == 0)
        masked.append({**record, 'segmentation': _as_text(rle)})
        del masked[-1]['bbox']
    return {**content, 'annotations': annotations}, masked


def _mask(box: list[float], size: tuple[int, int], chipped: bool) -> dict:
    mask = np.zeros(size, np.uint8, order='F')
    x, y, w, h = (round(value) for value in box)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 1
    if chipped:
        mask[max(y, 0) : max(y + h // 2, 0), max(x, 0) : max(x + w // 2, 0)] = 0
    return mask_utils.encode(mask)


def _as_text(rle: dict) -> dict:
    return dict(size=rle['size'], counts=rle['counts'].decode())


def _boxes(rng: np.random.Generator, count: int, image_size: int) -> list[list[float]]:
    boxes = []
    for _ in range(count):
        w, h = rng.choice(SIDES, 2) if rng.random() < 0.5 else [rng.choice(SIDES)] * 2
        w, h = min(w, image_size), min(h, image_size)
        x, y = (rng.uniform(0, image_size - s) for s in (w, h))
        boxes.append([float(x), float(y), float(w), float(h)])
    return boxes
