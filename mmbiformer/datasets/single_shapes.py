"""Single shapes: a small data set for classification, made from a seed without any download.

One of the shapes of :mod:`mmbiformer.datasets.shapes` in each image, in the hue of its class, some
of them before a distractor of any hue.
"""

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .generated import make_once
from .shapes import (
    CLASSES,
    SPLITS,
    Layout,
    image_stream,
    paint,
    sample_distractor,
    sample_object,
)

# Raised by every change that draws other images from the same parameters.
VERSION = 1
IMAGE_SIZE = 64  # height and width in pixels
SIDES = (0.22, 0.6)  # square roots of the areas of shapes, as parts of the image's side


def make_single_shapes(
    root: str | Path,
    num_train: int = 2400,
    num_val: int = 300,
    seed: int = 0,
) -> Path:
    """Write the data set, unless it is there already.

    The folder holds ``{training,validation}/<class>/*.jpg``, as ImageNet does, with as many images
    of each class. It appears under its name only when it is complete.

    Args:
        root (str | Path): Folder to make.
        num_train, num_val (int): Number of training images, and of validation images, at least 6.
        seed (int): Seed, not negative. Image ``i`` of a split depends on the seed and ``i`` alone,
            so other counts keep the images.

    Returns:
        Path: The folder.

    Raises:
        ValueError: If a parameter is out of its range.
        UserError: If ``root`` holds anything else than the data set of exactly these parameters.
    """
    parameters = dict(
        version=VERSION, num_train=num_train, num_val=num_val, image_size=IMAGE_SIZE, seed=seed
    )
    minima = dict(num_train=len(CLASSES), num_val=len(CLASSES), seed=0)

    def write(folder: Path) -> None:
        for split, num_images in zip(SPLITS, (num_train, num_val), strict=True):
            _write_split(folder / split, split, num_images, seed)

    return make_once(root, 'single shapes', parameters, minima, write)


def _write_split(folder: Path, split: str, num_images: int, seed: int) -> None:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    label = f'single shapes, {split}'
    for index in tqdm(range(num_images), desc=label, unit='image', mininterval=0.5):
        name = CLASSES[index % len(CLASSES)]
        image = _draw(image_stream(seed, split, index), CLASSES.index(name))
        # No two images have one name: pictures of predictions go to one folder.
        cv2.imwrite(str(folder / name / f'{index:06d}.jpg'), image)


def _draw(rng: np.random.Generator, label: int) -> np.ndarray:
    """One image, (H, W, 3), uint8, BGR, with one object of a class."""
    distractors = [sample_distractor(rng, IMAGE_SIZE) for _ in range(rng.integers(0, 2))]
    area = (rng.uniform(*SIDES) * IMAGE_SIZE) ** 2
    shape = sample_object(rng, CLASSES[label], area, IMAGE_SIZE)
    return paint(rng, IMAGE_SIZE, Layout(distractors, [label], [shape]))
