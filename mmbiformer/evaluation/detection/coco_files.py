"""Ground truth and detections of content in COCO's formats, checked record by record.

Nothing is dropped: a record that does not fit is an error that names the file and the record.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mmbiformer.errors import UserError

from .coco_records import box_problem, check_ids, check_records, is_number, positions_of
from .rle import find_broken, polygons_problem, rle_problem


@dataclass
class GroundTruth:
    """Images and categories in the order of their ids, objects in that of the file.

    Attributes:
        path (str): Where they come from, for messages.
        image_ids (list): I ids, ascending.
        images (list[dict]): I records, with file_name, height and width where the file has them.
        category_ids (list), category_names (list[str]): K of each, by ascending id.
        ids (list): Of the objects, for messages.
        image, category (np.ndarray): Of each object, its positions in these lists; int64, (G, ).
        boxes (np.ndarray): x, y, width, height in pixels; float64, (G, 4).
        areas (np.ndarray): COCO's ``area``, in pixels; float64, (G, ).
        crowd (np.ndarray): bool, (G, ).
        segmentations (list): Polygons or RLE of each object, None for one without.
        is_in_order (bool): Whether the file lists its images in the order of their ids.
        notices (list[str]): What does not count, or not as one may think, in sentences.
    """

    path: str
    image_ids: list
    images: list[dict]
    category_ids: list
    category_names: list[str]
    ids: list
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segmentations: list
    is_in_order: bool
    notices: list[str] = field(default_factory=list)

    @cached_property
    def image_areas(self) -> np.ndarray:
        """Height times width of each image in pixels, (I, ).

        Raises:
            UserError: If an image has no size.
        """
        for image in self.images:
            sides = image.get('height'), image.get('width')
            if not all(is_number(side) and side > 0 for side in sides):
                raise UserError(
                    f"image {image['id']} of '{self.path}' has no height and width, which "
                    'relative sizes and masks need: add them'
                )
        return np.array([float(x['height'] * x['width']) for x in self.images])


@dataclass
class Detections:
    """What a detector found, in the order of the file.

    Attributes:
        path (str): Where they come from, for messages.
        image, category (np.ndarray): Positions in the ground truth's lists; int64, (D, ).
        scores (np.ndarray): float64, (D, ).
        boxes (np.ndarray | None): x, y, width, height in pixels, (D, 4).
        segmentations (list[dict] | None): Run-length encodings.
        names (list[str] | None): What messages call each, where not its position in the file.
        notices (list[str]): What of the file was left out, in sentences.
    """

    path: str
    image: np.ndarray
    category: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None
    segmentations: list | None
    names: list[str] | None = None
    notices: list[str] = field(default_factory=list)


def ground_truth_of(
    content: dict, path: str, category_names: Sequence[str] | None = None
) -> GroundTruth:
    """The ground truth of a COCO annotation file's content.

    Args:
        content (dict): With images, annotations and categories.
        path (str): What messages call it.
        category_names (Sequence[str], optional): Of the categories to keep. Defaults to all.

    Raises:
        UserError: If the content, or a record of it, is not what COCO's format wants.
    """
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise UserError(f"'{path}' has no list of {key}: it is not a COCO annotation file")
        check_ids(content[key], key, path)
    images = sorted(content['images'], key=lambda x: x['id'])
    kept = sorted(content['categories'], key=lambda x: x['id'])
    if category_names is not None:
        kept = [x for x in kept if x.get('name') in category_names]
    if not images or not kept:
        which = '' if category_names is None else f' {", ".join(category_names)}'
        raise UserError(f"'{path}' has no {'categories' + which if images else 'images'}")
    records = content['annotations']
    known = {x['id'] for x in content['categories']}

    def check(record: dict) -> str | None:
        category = record.get('category_id')
        if type(category) not in (int, str) or category not in known:
            return f'category_id {record.get("category_id")!r}, which is not among its categories'
        if not is_number(record.get('area')) or record['area'] < 0:
            return f"area {record.get('area')!r}: COCO's evaluation needs it, in pixels"
        if record.get('iscrowd', 0) not in (0, 1):
            return f'iscrowd {record["iscrowd"]!r}, neither 0 nor 1'
        return box_problem(record)

    image = positions_of(records, 'image_id', [x['id'] for x in images], path)
    check_records(records, check, path)
    kept_ids = [x['id'] for x in kept]
    wanted = set(kept_ids)
    selected = [i for i, x in enumerate(records) if x['category_id'] in wanted]
    records = [records[i] for i in selected]
    ground_truth = GroundTruth(
        path=path,
        image_ids=[x['id'] for x in images],
        images=images,
        category_ids=kept_ids,
        category_names=[str(x.get('name', x['id'])) for x in kept],
        ids=[x['id'] for x in records],
        image=image[selected],
        category=positions_of(records, 'category_id', kept_ids, path),
        boxes=np.array([x['bbox'] for x in records], np.float64).reshape(-1, 4),
        areas=np.array([x['area'] for x in records], np.float64),
        crowd=np.array([bool(x.get('iscrowd', 0)) for x in records], bool),
        segmentations=[x.get('segmentation') or None for x in records],
        is_in_order=images == content['images'],
    )
    ground_truth.notices = _notices(ground_truth, content, records)
    return ground_truth


def _notices(ground_truth: GroundTruth, content: dict, records: list[dict]) -> list[str]:
    num_crowds = ground_truth.crowd.sum()
    num_empty = (ground_truth.boxes[:, 2:] <= 0).any(axis=1).sum()
    num_dropped = len(content['annotations']) - len(records)
    num_flagged = sum(bool(x.get('ignore')) and not x.get('iscrowd') for x in records)
    facts = [
        (
            num_crowds,
            'crowd regions are no objects to be found; detections on them count neither way',
        ),
        (num_empty, 'objects have a box without area, and cannot be found'),
        (num_dropped, 'annotations of other categories are left out'),
        (
            num_flagged,
            "objects have the flag ignore, which COCO's evaluation knows nothing of: they count",
        ),
    ]
    notices = [f'{count:,} {fact}' for count, fact in facts if count]
    if any(x['id'] == 0 for x in records):
        notices.append(
            'an annotation has the id 0, which pycocotools takes for "not matched" and never '
            'counts as found; here it counts as any other'
        )
    return notices


def detections_of(
    records: Any,
    path: str,
    ground_truth: GroundTruth,
    may_be_empty: bool = False,
    names: list[str] | None = None,
) -> Detections:
    """The detections of a COCO result file's content, on the images of a ground truth.

    The content ``may_be_empty`` where its detector is known to have run to the end; ``names`` are
    those of :class:`Detections`.

    Raises:
        UserError: If the content, or a record of it, is not what COCO's format wants; if it has no
            detections and may not be empty, or is of another data set.
    """
    if not isinstance(records, list):
        raise UserError(f"'{path}' is not a list of detections, but a {type(records).__name__}")
    if not records and may_be_empty:
        none = np.zeros(0, np.int64)
        return Detections(path, none, none, np.zeros(0), np.zeros((0, 4)), [])
    if not records:
        raise UserError(f"'{path}' has no detections: is it the result of a finished test?")

    shapes = _shapes(records[0]) if isinstance(records[0], dict) else []
    if not shapes:
        raise UserError(f"record 0 of '{path}' has neither bbox nor segmentation")
    has_boxes, has_masks = 'bbox' in shapes, 'segmentation' in shapes

    def check(record: dict) -> str | None:
        if not is_number(record.get('score')):
            return f'score {record.get("score")!r}, not a finite number'
        if _shapes(record) != shapes:
            own = ' and '.join(_shapes(record)) or 'neither bbox nor segmentation'
            return f'{own}, while record 0 has {" and ".join(shapes)}'
        return box_problem(record) if has_boxes else None

    other = ground_truth.path
    image = positions_of(records, 'image_id', ground_truth.image_ids, path, other)
    category = positions_of(records, 'category_id', ground_truth.category_ids, path, other)
    check_records(records, check, path, names)
    return Detections(
        path=path,
        image=image,
        category=category,
        scores=np.array([x['score'] for x in records], np.float64),
        boxes=np.array([x['bbox'] for x in records], np.float64) if has_boxes else None,
        segmentations=[x['segmentation'] for x in records] if has_masks else None,
        names=names,
    )


def _shapes(record: dict) -> list[str]:
    return [x for x in ('bbox', 'segmentation') if x in record]


def check_iou_type(records: GroundTruth | Detections, iou_type: str) -> None:
    """Check that there are boxes, or masks, to judge.

    Raises:
        UserError: Names the file and what of it has none.
    """
    has_masks = iou_type == 'segm'
    lacking = None
    if (records.segmentations if has_masks else records.boxes) is None:
        lacking = 'record 0'
    elif has_masks and isinstance(records, GroundTruth) and None in records.segmentations:
        lacking = f'annotation {records.ids[records.segmentations.index(None)]}'
    if lacking:
        what, other = ('segmentation', 'bbox') if has_masks else ('bbox', 'segm')
        raise UserError(f"{lacking} of '{records.path}' has no {what}: judge by iou type {other}")


def check_masks(records: GroundTruth | Detections, ground_truth: GroundTruth) -> None:
    """Check the masks of the ground truth or of detections on its images, all of which have one.

    Raises:
        UserError: Names the first that is none, or is of another size than its image.
    """
    is_truth = isinstance(records, GroundTruth)
    areas = ground_truth.image_areas  # which checks that there are sizes
    sizes = [(x['height'], x['width']) for x in ground_truth.images]

    def fail(position: int, problem: str) -> None:
        name = f'annotation {records.ids[position]}' if is_truth else f'record {position}'
        name = f"{name} of '{records.path}'"
        if not is_truth and records.names:
            name = records.names[position]
        image = ground_truth.image_ids[records.image[position]]
        raise UserError(
            f'{name} (image_id {image}) has {problem}; boxes can be judged without: iou type bbox'
        )

    compressed = []
    for position, (value, image) in enumerate(
        zip(records.segmentations, records.image.tolist(), strict=True)
    ):
        is_polygons = is_truth and not isinstance(value, dict)
        problem = polygons_problem(value) if is_polygons else rle_problem(value, *sizes[image])
        if problem:
            fail(position, problem)
        if not is_polygons and not isinstance(value['counts'], list):
            compressed.append(position)
        elif not is_truth:
            fail(position, 'a mask whose counts are not compressed, as results have them')
    pixels = areas[records.image[compressed]].astype(np.int64)
    broken = find_broken([records.segmentations[i]['counts'] for i in compressed], pixels)
    if broken is not None:
        problem = f'a mask whose counts are not runs of its {pixels[broken]:,} pixels'
        fail(compressed[broken], problem)
