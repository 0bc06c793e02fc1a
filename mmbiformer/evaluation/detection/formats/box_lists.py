"""Lists of boxes, labels and scores, as torchvision's and Hugging Face's detectors return them.

A list with a dict for each image, or a dict of them by image id: boxes are x1, y1, x2, y2 in
pixels, masks run-length encodings. Sources: torchvision's FasterRCNN and MaskRCNN, transformers'
``post_process_object_detection``; ``.tolist()`` makes lists of their tensors.
"""

from typing import Any

from mmbiformer.errors import UserError

from ..coco_records import is_number
from .matching import Found, ImageNames

COLUMNS = {'labels': 'category_id', 'scores': 'score', 'masks': 'segmentation'}


def read(content: list | dict, images: ImageNames) -> Found:
    """The boxes of all images, one image after the other."""
    keys = content if isinstance(content, dict) else range(len(content))
    names = [f"record {key!r} of '{images.path}'" for key in keys]
    records = list(content.values()) if isinstance(content, dict) else content
    for record, name in zip(records, names, strict=True):
        if problem := _problem(record):
            raise UserError(f'{name} has {problem}')
    if isinstance(content, dict):
        ids = {str(x): x for x in images.ground_truth.image_ids}
        for (key, record), name in zip(content.items(), names, strict=True):
            if key in ids and record.get('image_id', ids[key]) != ids[key]:
                raise UserError(f'{name} has image_id {record["image_id"]!r}: keep one of both')
        records = [{'image_id': ids.get(key, key), **x} for key, x in content.items()]
    boxes = [box for x in records for box in x['boxes']]
    if boxes and max(map(max, boxes)) <= 1 and any(x % 1 for box in boxes for x in box):
        raise UserError(
            f"all boxes of '{images.path}' lie between 0 and 1, which are no pixels: scale them, "
            'as post_process_object_detection does with target_sizes'
        )
    found, owners = Found([], ('ids', 'from-1', 'from-0', 'coco'), []), {}
    for record, name, image in zip(records, names, _ids(records, images), strict=True):
        if owners.setdefault(image, name) != name:
            raise UserError(f'{owners[image]} and {name} are of the same image')
        for i, (x1, y1, x2, y2) in enumerate(record['boxes']):
            detection = dict(image_id=image, bbox=[x1, y1, x2 - x1, y2 - y1])
            detection |= {own: record[key][i] for key, own in COLUMNS.items() if key in record}
            found.records.append(detection)
            found.names.append(f'box {i} of {name}')
    return found


def _problem(record: Any) -> str | None:
    if not isinstance(record, dict) or not record.keys() >= {'boxes', 'labels', 'scores'}:
        return 'not all of boxes, labels and scores'
    columns = {key: record[key] for key in ('boxes', *COLUMNS) if key in record}
    if not all(isinstance(x, list) for x in columns.values()):
        return f'something other than lists of {", ".join(columns)}: .tolist() makes them'
    if len({len(x) for x in columns.values()}) > 1:
        counts = ', '.join(f'{len(x)} {key}' for key, x in columns.items())
        return f'{counts}: give as many of each'
    for box in record['boxes']:
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            return f'the box {box!r}, not four finite numbers x1, y1, x2, y2'
        if box[2] < box[0] or box[3] < box[1]:
            return f'the box {box!r} of negative width or height: it takes x1, y1, x2, y2'
    if not all(isinstance(x, dict) for x in columns.get('masks', ())):
        return 'masks that are no run-length encodings: encode them, or leave them out'
    return None


def _ids(records: list[dict], images: ImageNames) -> list:
    """The image of each record: by file_name, image_id, or the order of the ground truth."""
    path, truth = images.path, images.ground_truth
    has_ids = images.has_ids(records)
    if any('file_name' in x for x in records):
        ids = images.ids_of(records, 'file_name')
        if has_ids and ids != [x['image_id'] for x in records]:
            raise UserError(f"image_id and file_name of '{path}' mean different images: keep one")
        return ids
    if has_ids:
        return [x['image_id'] for x in records]
    if any('image_id' in x for x in records):
        return images.ids_of(records, 'image_id')
    if len(records) != len(truth.image_ids) or not truth.is_in_order:
        raise UserError(
            f"the {len(records):,} records of '{path}' have neither image_id nor file_name, and "
            f"are not clearly the {len(truth.image_ids):,} images of '{truth.path}': add one"
        )
    return truth.image_ids
