"""The worst images of a report as vector drawings over photos, each photo stored once.

Boxes are kept apart from pixels: one JPEG serves every model, range and close-up that shows an
image, and lines and letters stay sharp where 8 pixels are enlarged. Coordinates are pixels of the
annotated image.
"""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from pathlib import Path

import cv2
import numpy as np

from ..report_data import DetectionReport, WorstImage

# Of all photos of a report together, before base64 adds a third.
PHOTO_BYTES = 4_000_000
LARGEST_PHOTO = 130_000
# Longest side in pixels and JPEG quality, from the best; the first that fits is taken.
GRADES = ((1024, 85), (1024, 70), (800, 65), (640, 55), (480, 45), (320, 40))
CLOSE_UP_GRADES = ((420, 75),)
# A close-up is this many sides of a typical wrong box wide, so that it is worth a look.
CLOSE_UP_SIDES, SMALLEST_CLOSE_UP = 9, 40
LEAST_ZOOM = 1.8
# Height of letters as a share of the view's width, and their width as a share of their height.
LETTERS, CLOSE_UP_LETTERS, LETTER_WIDTH = 0.022, 0.038, 0.56


@dataclass
class Photo:
    """A JPEG as a data URI, and x, y, width, height of what it shows of the annotated image.

    ``is_reduced`` where it has fewer pixels than that part.
    """

    key: str
    uri: str
    window: tuple[int, int, int, int]
    is_reduced: bool


@dataclass
class Shape:
    """A box: kind is 'found', 'missed' or 'false'; found ones have no label."""

    kind: str
    box: tuple[float, float, float, float]
    label: str
    description: str

    @property
    def path(self) -> str:
        """As SVG."""
        x, y, w, h = (f'{value:.1f}'.removesuffix('.0') for value in self.box)
        return f'M{x} {y}h{w}v{h}h-{w}z'


@dataclass
class View:
    """The whole image or a close-up of it.

    Attributes:
        photo (str | None): Key of the photo, None where there is none.
        window (tuple): x, y, width, height of what it shows.
        letters (float): Height of its labels, in pixels of the image.
        labels (list[tuple]): x and y of the baseline's begin, kind, text.
    """

    photo: str | None
    window: tuple[float, float, float, float]
    letters: float
    labels: list[tuple[float, float, str, str]]


@dataclass
class Drawing:
    """A worst image: what the report says of it, its boxes, the whole and perhaps a close-up.

    ``problem`` says why there is no photo.
    """

    image: WorstImage
    shapes: list[Shape]
    views: list[View]
    problem: str | None


@dataclass
class Album:
    """All drawings of a report.

    Attributes:
        photos (list[Photo]): What the views refer to.
        drawings (dict): (position of the model, of the range) -> drawings, worst first.
        notices (list[str]): Which photos are missing, and why.
        explorers (dict): Names of image files -> addresses of their routing explorers.
    """

    photos: list[Photo] = field(default_factory=list)
    drawings: dict[tuple[int, int], list[Drawing]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    explorers: dict[str, str] = field(default_factory=dict)


def draw_worst_images(report: DetectionReport, image_dir: str | Path | None = None) -> Album:
    """Draw the worst images of a report.

    ``image_dir`` is where ``file_name`` of the images is looked up. Without it, or where a file is
    missing, boxes are drawn on grey, and a notice says so.
    """
    album = Album()
    by_image = defaultdict(list)
    for place, image in _worst(report):
        by_image[image.id].append((place, image))
    limit = min(LARGEST_PHOTO, PHOTO_BYTES // max(1, len(by_image)))
    folder = None if image_dir is None else Path(image_dir)
    problems = defaultdict(list)
    drawn = {}
    for uses in by_image.values():
        first = uses[0][1]
        pixels, problem = read_image(first, folder)
        if problem:
            problems[problem].append(first.file_name or f'image {first.id}')
        photo = None
        if pixels is not None:
            height, width = pixels.shape[:2]
            photo = _add_photo(album, pixels, (0, 0, width, height), GRADES, limit)
        for place, image in uses:
            drawn[place, image.id] = _draw(album, image, pixels, photo, problem)
    for place, image in _worst(report):
        album.drawings.setdefault(place, []).append(drawn[place, image.id])
    for problem, names in problems.items():
        which = f'first {names[0]}' if len(names) > 1 else names[0]
        album.notices.append(
            f'{len(names):,} of {len(by_image):,} worst images are drawn on grey ({which}): '
            f'{problem}'
        )
    return album


def _worst(report: DetectionReport) -> Iterator[tuple[tuple[int, int], WorstImage]]:
    """((position of the model, of the range), image)."""
    for i, model in enumerate(report.models):
        for a, images in enumerate(model.worst_images):
            for image in images:
                yield (i, a), image


def read_image(image: WorstImage, folder: Path | None) -> tuple[np.ndarray | None, str | None]:
    """Pixels of an image, (H, W, 3) uint8 in BGR, and None; or None, and why there are none."""
    if folder is None:
        return None, 'no image folder was given'
    if not image.file_name:
        return None, 'the annotations do not name its file'
    path = folder / image.file_name
    if not path.is_file():
        return None, f"no such file in '{folder}'"
    content = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if pixels is None:
        return None, 'the file is no image that can be read'
    annotated = image.height, image.width
    if None not in annotated and pixels.shape[:2] != annotated:
        return None, "the file's height and width are not those of the annotations"
    return pixels, None


def _draw(
    album: Album,
    image: WorstImage,
    pixels: np.ndarray | None,
    photo: Photo | None,
    problem: str | None,
) -> Drawing:
    shapes = list(_shapes(image))
    if photo:
        size = photo.window[2:]
    elif image.width and image.height:
        size = image.width, image.height
    else:
        boxes = np.array([shape.box for shape in shapes])
        size = tuple((boxes[:, :2] + boxes[:, 2:]).max(axis=0).clip(1).tolist())
    views = [_view(photo, (0, 0, *size), LETTERS, shapes)]
    window = close_up(shapes, size)
    if window:
        if photo and photo.is_reduced:  # it lacks the pixels that a close-up is for
            photo = _add_photo(album, pixels, window, CLOSE_UP_GRADES)
        views.append(_view(photo, window, CLOSE_UP_LETTERS, shapes))
    return Drawing(image, shapes, views, problem)


def _shapes(image: WorstImage) -> Iterator[Shape]:
    """What is drawn first can be covered: found objects."""
    for shown in sorted(image.objects, key=lambda x: not x.found):
        kind = 'found' if shown.found else 'missed'
        label = '' if shown.found else shown.category
        yield Shape(kind, tuple(shown.box), label, f'{kind}: {shown.category}')
    for shown in image.detections:
        name = f'{shown.category} {shown.score:.2f}'
        kind = shown.type or 'in this range alone'
        label = f'{name} {shown.type or ""}'.rstrip()
        yield Shape('false', tuple(shown.box), label, f'false: {name}, {kind}')


def close_up(
    shapes: list[Shape], size: tuple[float, float]
) -> tuple[float, float, float, float] | None:
    """The square around most of what is wrong, as x, y, width and height.

    None where it is no smaller than the image, whose width and height are ``size``.
    """
    boxes = np.array([shape.box for shape in shapes if shape.kind != 'found'])
    sides = np.sqrt(boxes[:, 2:].clip(0).prod(axis=1))
    side = max(CLOSE_UP_SIDES * float(np.median(sides)), SMALLEST_CLOSE_UP)
    if side * LEAST_ZOOM > max(size) or side > min(size):
        return None
    begins = boxes[:, :2] + boxes[:, 2:] / 2 - side / 2
    begins = begins.clip(0, np.array(size) - side)
    # Which boxes (second axis) lie in which windows (first axis).
    offsets = boxes[None, :, :2] - begins[:, None]
    holds = ((offsets >= 0) & (offsets + boxes[None, :, 2:] <= side)).all(axis=2)
    held = boxes[holds[holds.sum(axis=1).argmax()]]
    if not len(held):  # each is larger than the window
        held = boxes[:1]
    middle = (held[:, :2].min(axis=0) + (held[:, :2] + held[:, 2:]).max(axis=0)) / 2
    x, y = (middle - side / 2).clip(0, np.array(size) - side).tolist()
    return x, y, side, side


def _view(
    photo: Photo | None,
    window: tuple[float, float, float, float],
    letters: float,
    shapes: list[Shape],
) -> View:
    height = letters * window[2]
    return View(photo and photo.key, window, height, place_labels(shapes, window, height))


def place_labels(
    shapes: list[Shape], window: tuple[float, float, float, float], letters: float
) -> list[tuple[float, float, str, str]]:
    """Put labels over, under or into their boxes; see :class:`View`.

    Those of boxes outside the window, and those that have no room, are left out.
    """
    left, top, width, height = window
    taken, labels = [], []
    for shape in shapes:
        x, y, w, h = shape.box
        inside = x < left + width and x + w > left and y < top + height and y + h > top
        if not shape.label or not inside:
            continue
        length = len(shape.label) * letters * LETTER_WIDTH
        begin = max(left, min(x, left + width - length))
        for baseline in (y - 0.25 * letters, y + h + letters, y + 1.1 * letters):
            area = begin, baseline - letters, begin + length, baseline + 0.25 * letters
            if area[1] < top or area[3] > top + height:
                continue
            if not any(_overlap(area, other) for other in taken):
                taken.append(area)
                labels.append((round(begin, 1), round(baseline, 1), shape.kind, shape.label))
                break
    return labels


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _add_photo(
    album: Album,
    pixels: np.ndarray,
    window: tuple[float, float, float, float],
    grades: Sequence[tuple[int, int]],
    limit: float = inf,
) -> Photo:
    """Add the part of an image in the window, in the first grade of at most ``limit`` bytes."""
    x, y, width, height = window
    left, top = int(x), int(y)
    part = pixels[top : ceil(y + height), left : ceil(x + width)]
    height, width = part.shape[:2]
    for longest, quality in grades:
        scale = min(1, longest / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        reduced = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        _, content = cv2.imencode('.jpg', reduced, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(content) <= limit:
            break
    uri = 'data:image/jpeg;base64,' + b64encode(content).decode()
    key = f'photo-{len(album.photos) + 1}'
    photo = Photo(key, uri, (left, top, width, height), is_reduced=scale < 1)
    album.photos.append(photo)
    return photo
