"""Shapes: a small data set for detection and segmentation, made from a seed without any download.

Coloured, textured shapes of six classes on textured backgrounds, sometimes overlapping, beside
distractors that belong to no class. Boxes, instance masks and label maps describe the visible part
of each object.
"""

import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from tqdm import tqdm

from .generated import make_once

CLASSES = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')

# Values of the label maps; class i of `CLASSES` has the value i + 2. As in ADE20K, 0 means other.
OTHER, BACKGROUND = 0, 1

SPLITS = ('training', 'validation')
NAME = 'shapes'
# Raised by every change that draws other images from the same parameters.
VERSION = 1
MIN_IMAGE_SIZE = 160

# The size bins of COCO, small, medium and large, as square roots of areas in pixels: the floor of
# the bin, which the visible part of an object keeps to, and the range from which whole objects are
# drawn.
SIZE_BINS = ((8, 11, 31), (32, 36, 92), (96, 102, 130))
MIN_VISIBLE_FRACTION = 0.7
# With octaves: how many objects an image gets, and their sides, square roots of areas in pixels.
NUM_OBJECTS, SIDES = (8, 20), (4, 128)

# Spread of the hues of a class, in turns; the classes are a sixth of a turn apart.
HUE_DEVIATION = 0.025


class Layout(NamedTuple):
    """What lies where in one image.

    Attributes:
        distractors (list[np.ndarray]): Bool masks (H, W) of what belongs to no class.
        labels (list[int]): Classes of the objects, positions in `CLASSES`.
        masks (list[np.ndarray]): Bool masks (H, W) of the visible parts of the objects.
    """

    distractors: list[np.ndarray]
    labels: list[int]
    masks: list[np.ndarray]


def make_shapes(
    root: str | Path,
    num_train: int = 800,
    num_val: int = 100,
    image_size: int = 160,
    seed: int = 0,
    octaves: bool = False,
) -> Path:
    """Write the data set, unless it is there already.

    The folder holds ``images/{training,validation}/*.jpg``, instance annotations in COCO format in
    ``annotations/instances_{training,validation}.json`` and label maps of the same images, as
    ADE20K has them, in ``annotations/{training,validation}/*.png``. It appears under its name only
    when it is complete.

    Args:
        root (str | Path): Folder to make.
        num_train, num_val (int): Number of training images, and of validation images.
        image_size (int): Height and width of the images in pixels, at least 160.
        seed (int): Seed, not negative. Image ``i`` of a split depends on the seed, ``i``,
            ``image_size`` and ``octaves`` alone, so other counts keep the images.
        octaves (bool): Draw up to 20 objects per image, as many in each octave of size, instead
            of up to seven in the size bins of COCO.

    Returns:
        Path: The folder.

    Raises:
        ValueError: If a parameter is out of its range.
        UserError: If ``root`` holds anything else than the data set of exactly these parameters.
    """
    parameters = dict(
        version=VERSION, num_train=num_train, num_val=num_val, image_size=image_size, seed=seed
    )
    minima = dict(num_train=1, num_val=1, image_size=MIN_IMAGE_SIZE, seed=0)
    if octaves:  # named only where set: older folders stay what their manifests say
        parameters['octaves'] = True

    def write(folder: Path) -> None:
        for split, num_images in zip(SPLITS, (num_train, num_val), strict=True):
            _write_split(folder, split, num_images, image_size, seed, octaves)

    return make_once(root, NAME, parameters, minima, write)


def image_stream(seed: int, split: str, index: int) -> np.random.Generator:
    """The random stream of the image ``index`` of a split, independent of all others."""
    return np.random.Generator(np.random.PCG64((seed, SPLITS.index(split), index)))


def sample_layout(rng: np.random.Generator, image_size: int, octaves: bool = False) -> Layout:
    """Place the distractors and the objects of one image; arguments as of :func:`make_shapes`.

    Objects are placed from large to small and a later one hides what it covers. One that would
    leave too little visible, of itself or of an earlier object, is drawn again elsewhere.
    """
    distractors = [sample_distractor(rng, image_size) for _ in range(rng.integers(0, 3))]
    if octaves:
        sides = np.exp(rng.uniform(*np.log(SIDES), rng.integers(*NUM_OBJECTS, endpoint=True)))
        bins = [(0, side, side) for side in sorted(sides, reverse=True)]
    else:
        small, medium, large = rng.integers(1, 4), rng.integers(0, 4), rng.random() < 0.75
        bins = [SIZE_BINS[i] for i in [2] * large + [1] * medium + [0] * small]
    labels, masks, floors = [], [], []
    for bin_floor, smallest, largest in bins:
        for _ in range(20):
            label = int(rng.integers(len(CLASSES)))
            area = rng.uniform(smallest, largest) ** 2
            mask = sample_object(rng, CLASSES[label], area, image_size)
            new_masks = [earlier & ~mask for earlier in masks] + [mask]
            new_floors = floors + [max(bin_floor**2, MIN_VISIBLE_FRACTION * area)]
            pairs = zip(new_masks, new_floors, strict=True)
            if all(visible.sum() >= floor for visible, floor in pairs):
                labels.append(label)
                masks, floors = new_masks, new_floors
                break
    return Layout(distractors, labels, masks)


def paint(rng: np.random.Generator, image_size: int, layout: Layout) -> np.ndarray:
    """Paint one image: (H, W, 3), uint8, BGR.

    Each class has its hue, give or take; distractors have any hue and backgrounds are pale.
    """
    image = _texture(rng, image_size, _colour(rng, max_saturation=0.3), contrast=40)
    hues = [None] * len(layout.distractors) + [label / len(CLASSES) for label in layout.labels]
    for hue, mask in zip(hues, layout.distractors + layout.masks, strict=True):
        rim = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~mask
        around = image[rim].mean(axis=0) if rim.any() else image.mean(axis=(0, 1))
        colour = _colour(rng, hue)
        while np.abs(colour - around).mean() < 40:
            colour = _colour(rng, hue)
        image[mask] = _texture(rng, image_size, colour, contrast=25)[mask]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    image = image * rng.uniform(0.7, 1.1) + rng.normal(0, rng.uniform(2, 6), image.shape)
    return image.clip(0, 255).astype(np.uint8)


def label_map(image_size: int, layout: Layout) -> np.ndarray:
    """The label map of one image: (H, W), uint8, 0 where a distractor is, 1 for the background."""
    labelled = np.full((image_size, image_size), BACKGROUND, np.uint8)
    for mask in layout.distractors:
        labelled[mask] = OTHER
    for label, mask in zip(layout.labels, layout.masks, strict=True):
        labelled[mask] = BACKGROUND + 1 + label
    return labelled


def _write_split(
    root: Path, split: str, num_images: int, image_size: int, seed: int, octaves: bool
) -> None:
    image_dir, annotation_dir = root / 'images' / split, root / 'annotations' / split
    image_dir.mkdir(parents=True)
    annotation_dir.mkdir(parents=True)
    images, annotations = [], []
    for index in tqdm(range(num_images), desc=f'shapes, {split}', unit='image', mininterval=0.5):
        rng = image_stream(seed, split, index)
        layout = sample_layout(rng, image_size, octaves)
        stem = f'{index:06d}'
        cv2.imwrite(str(image_dir / f'{stem}.jpg'), paint(rng, image_size, layout))
        cv2.imwrite(str(annotation_dir / f'{stem}.png'), label_map(image_size, layout))
        images.append(
            dict(id=index + 1, file_name=f'{stem}.jpg', height=image_size, width=image_size)
        )
        for label, mask in zip(layout.labels, layout.masks, strict=True):
            # COCO's evaluation takes the annotation id 0 for "not matched": ids begin with 1.
            ids = dict(id=len(annotations) + 1, image_id=index + 1, category_id=label + 1)
            annotations.append(dict(ids, iscrowd=0, **_geometry(mask)))
    content = dict(
        info=dict(description=f'shapes, {split}, seed {seed}', version=str(VERSION)),
        images=images,
        annotations=annotations,
        categories=[
            dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, 1)
        ],
    )
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(content), encoding='utf-8')


def _geometry(mask: np.ndarray) -> dict:
    """Return segmentation (compressed RLE), bbox (x, y, width, height) and area, in pixels."""
    rle = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    bbox, area = mask_utils.toBbox(rle).tolist(), int(mask_utils.area(rle))
    return dict(
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode()), bbox=bbox, area=area
    )


def _regular(num_points: int, radius: float | np.ndarray = 1.0, phase: float = 0.0) -> np.ndarray:
    """Return points (num_points, 2) spread over a circle; `radius` may be one per point."""
    angles = 2 * np.pi * np.arange(num_points) / num_points + phase
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radius, (-1, 1))


def _contours(name: str) -> list[np.ndarray]:
    """Return the contours (num_points, 2) of a class around the origin; a second one is a hole."""
    if name == 'cross':
        arm = np.array([(0.4, 0.4), (1, 0.4), (1, -0.4)])
        turn = np.array([(0, -1), (1, 0)])
        return [np.concatenate([arm @ np.linalg.matrix_power(turn, i) for i in range(4)])]
    return {
        'circle': [_regular(64)],
        'square': [_regular(4)],
        'triangle': [_regular(3)],
        'star': [_regular(10, np.tile([1.0, 0.5], 5))],
        'ring': [_regular(64), _regular(64, 0.5)],
    }[name]


def _polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _fill(contours: list[np.ndarray], image_size: int) -> np.ndarray:
    """Return the bool mask (H, W) inside contours in pixels; one within another is a hole."""
    fraction_bits = 4
    mask = np.zeros((image_size, image_size), np.uint8)
    points = [np.round(contour * 2**fraction_bits).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, points, 1, shift=fraction_bits)
    return mask.astype(bool)


def sample_object(rng: np.random.Generator, name: str, area: float, image_size: int) -> np.ndarray:
    """Draw an object of a class somewhere, at any angle, seen slightly from the side.

    Returns the bool mask (H, W) of what lies in the image; ``area`` is that of the whole object.
    """
    contours = _contours(name)
    unit_area = _polygon_area(contours[0]) - sum(_polygon_area(hole) for hole in contours[1:])
    scale = np.sqrt(area / unit_area)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    contours = [(contour * scale * (stretch, 1 / stretch)) @ rotation for contour in contours]
    # The middle stays so far inside that a small object is whole and a large one at most grazes
    # the border.
    margin = min(np.abs(contours[0]).max(), 0.42 * image_size)
    centre = rng.uniform(margin, image_size - margin, 2)
    return _fill([contour + centre for contour in contours], image_size)


def sample_distractor(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Draw a thin line or a blob of no class, as a mask (H, W)."""
    centre = rng.uniform(0, image_size, 2)
    if rng.random() < 0.5:
        half = _regular(2, rng.uniform(10, 70), rng.uniform(0, np.pi))
        width = _regular(2, rng.uniform(1, 3), rng.uniform(0, np.pi))
        corners = np.concatenate([half + width[0], half[::-1] + width[1]])
        return _fill([corners + centre], image_size)
    angles = 2 * np.pi * np.arange(48) / 48
    waves = sum(
        rng.uniform(0, 0.3) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)
    )
    return _fill([_regular(48, rng.uniform(6, 24) * (1 + waves)) + centre], image_size)


def _colour(
    rng: np.random.Generator, hue: float | None = None, max_saturation: float = 1.0
) -> np.ndarray:
    """Draw a BGR colour (3,), 0 to 255, of any hue or around the given one, in turns."""
    hue = rng.uniform() if hue is None else rng.normal(hue, HUE_DEVIATION) % 1
    saturation, value = rng.uniform(0.5 * max_saturation, max_saturation), rng.uniform(0.4, 1)
    hsv = np.array([[[360 * hue, saturation, value]]], np.float32)
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]


def _texture(
    rng: np.random.Generator, image_size: int, colour: np.ndarray, contrast: float
) -> np.ndarray:
    """Return BGR floats (H, W, 3) around a colour: noise of several scales, gradient, stripes."""
    pattern = np.zeros((image_size, image_size), np.float32)
    for cells in (3, 8, 24):
        noise = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        noise = cv2.resize(noise, pattern.shape, interpolation=cv2.INTER_CUBIC)
        pattern += rng.uniform(0, 1) * noise
    y, x = np.mgrid[:image_size, :image_size] / image_size
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if rng.random() < 0.4:
        pattern += rng.uniform(0.3, 1) * np.sin(2 * np.pi * rng.uniform(4, 24) * along)
    else:
        pattern += rng.uniform(0, 2) * (along - 0.5)
    return colour + pattern[..., None] * rng.uniform(-contrast, contrast, 3)
