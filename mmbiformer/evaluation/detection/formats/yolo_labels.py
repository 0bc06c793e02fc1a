"""Folders of YOLO labels: a text file for each image, a line for each object or detection.

``class cx cy width height`` or a polygon, ``class x1 y1 x2 y2 x3 y3 ...``, in fractions of the
image; detections end with their confidence, as ``yolo val save_txt=True save_conf=True`` writes
them. Source: ``verify_image_label`` and ``Results.save_txt`` of ultralytics 8.4.190.
"""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from faster_coco_eval.core import mask as mask_api
from PIL import Image

from mmbiformer.errors import UserError

from ..coco_files import GroundTruth, ground_truth_of
from .matching import SUFFIXES, Found, ImageNames, stem_of

# Coordinates may leave the image by so much, as in Ultralytics.
TOLERANCE = 0.01
ORIENTATION_TAG, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
MOST_CLASSES = 100_000  # more are a column that is no class


def read(folder: Path, images: ImageNames) -> Found:
    """Detections on images whose sizes the ground truth has."""
    _ = images.ground_truth.image_areas  # which checks that there are sizes
    files, notices = _label_files(folder, has_classes=images.find('classes') is not None)
    found, owners = Found([], ('from-0',), [], notices), {}
    for stem, path in files.items():
        image = images.find(stem)
        if image is None:
            raise UserError(
                f"'{path}' is of no image of '{images.ground_truth.path}': is it of another data "
                f"set, or '{folder}' not the folder of the labels itself?"
            )
        if owners.setdefault(image['id'], path) != path:
            raise UserError(f"'{owners[image['id']]}' and '{path}' are of the same image")
        size = image['height'], image['width']
        for name, number, shape, score in _lines(path, size, has_scores=True):
            record = dict(image_id=image['id'], category_id=number, score=score, **shape)
            if 'segmentation' in record:
                counts = _mask(shape, size)['counts'].decode()
                record['segmentation'] = dict(size=list(size), counts=counts)
            found.records.append(record)
            found.names.append(name)
    return found


def read_ground_truth(
    folder: Path,
    image_dir: str | Path | None,
    class_names: Sequence[str] | None,
    category_names: Sequence[str] | None,
) -> GroundTruth:
    """Objects on all images of a folder; those without a label file have none.

    Category ids are places from 1, as in Ultralytics' results. A polygon's area is its mask's.

    Raises:
        UserError: If there are no images, a label file has none, or a line is not right.
    """
    if image_dir is None or not Path(image_dir).is_dir():
        raise UserError(
            f"'{folder}' is a folder of labels, which need the sizes of images: --images names "
            f'their folder, and is {image_dir or "not given"}'
        )
    names = _image_names(Path(image_dir))
    files, notices = _label_files(folder, has_classes='classes' in names)
    if not files:
        raise UserError(f"'{folder}' has no label files (.txt): is it the folder of the labels?")
    lost = [files[x] for x in files if x not in names]
    if lost:
        raise UserError(
            f"'{lost[0]}' is of no image in '{image_dir}' ({len(lost):,} of {len(files):,}): are "
            'the images and the labels the same split?'
        )
    images, annotations, count = [], [], len(class_names or ())
    for stem, name in names.items():
        height, width = size = _image_size(Path(image_dir, name))
        images.append(dict(id=name, file_name=name, height=height, width=width))
        for described, number, shape, _ in _lines(files[stem], size) if stem in files else ():
            if class_names and number >= count:
                raise UserError(
                    f'{described} has the class {number}: --classes ends at {count - 1}'
                )
            if number >= MOST_CLASSES:
                raise UserError(f'{described} has the class {number}: are its columns in order?')
            count = max(count, number + 1)
            area = shape['bbox'][2] * shape['bbox'][3]
            if 'segmentation' in shape:
                area = float(mask_api.area(_mask(shape, size)))
            record = dict(id=len(annotations) + 1, image_id=name, category_id=number + 1)
            annotations.append(dict(record, area=area, **shape))
    classes = class_names or [str(i) for i in range(max(count, 1))]
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(classes, 1)],
    )
    truth = ground_truth_of(content, str(folder), category_names)
    truth.is_in_order = False  # a folder has no order
    if without := len(names) - len(files):
        notices.append(f'{without:,} of {len(names):,} images have no label file, and no objects')
    truth.notices = notices + truth.notices
    return truth


def _image_names(folder: Path) -> dict[str, str]:
    """Path without ending -> path of every image below a folder, relative to it, sorted."""
    paths = (x for x in folder.rglob('*') if x.suffix.lower() in SUFFIXES and x.is_file())
    names = {}
    for name in sorted(x.relative_to(folder).as_posix() for x in paths):
        other = names.setdefault(stem_of(name), name)
        if other != name:
            raise UserError(f"'{other}' and '{name}' in '{folder}' share a label file: rename one")
    return names


def _image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is shown, which its header may say to turn."""
    try:
        with Image.open(path) as image:
            # Of a TIFF, Pillow has turned the size already.
            orientation = None if image.format == 'TIFF' else image.getexif().get(ORIENTATION_TAG)
            is_turned = orientation in QUARTER_TURNS
            return image.size if is_turned else image.size[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"'{path}' has no size that can be read: {error}") from error


def _label_files(folder: Path, has_classes: bool) -> tuple[dict[str, Path], list[str]]:
    """Path without ending, relative to the folder -> label file; and a notice on other files.

    Labelling tools put ``classes.txt`` there, a list of names unless an image ``has_classes`` for
    its name.
    """
    files, others = {}, []
    for path in sorted(x for x in folder.rglob('*') if x.is_file()):
        if path.suffix == '.txt' and (path.name != 'classes.txt' or has_classes):
            files[path.relative_to(folder).with_suffix('').as_posix()] = path
        elif path.suffix.lower() not in SUFFIXES:
            others.append(path.name)
    if not others:
        return files, []
    return files, [f"{len(others):,} files of '{folder}' ('{others[0]}') are no labels; left out"]


def _lines(
    path: Path, size: tuple[int, int], has_scores: bool = False
) -> Iterator[tuple[str, int, dict, float]]:
    """(what messages call it, class, shape, confidence if it has) of each line."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no text file: {error}") from error
    for i, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            try:
                numbers = [float(x) for x in words]
                _check(words, numbers, has_scores)
            except ValueError as error:
                raise UserError(f"'{path}:{i}': {error}") from error
            fractions = numbers[1:-1] if has_scores else numbers[1:]
            yield f"'{path}:{i}'", int(numbers[0]), _shape(fractions, *size), numbers[-1]


def _check(words: list[str], numbers: list[float], has_scores: bool) -> None:
    """Raise ValueError if a line, as words and as numbers, is none of an object or a detection."""
    columns, count = len(numbers), len(numbers) - has_scores
    if not _is_shape(count):
        if has_scores and _is_shape(columns):
            raise ValueError(
                f'{columns} columns have no confidence, or a track id: write it by save_conf=True'
            )
        if not has_scores and _is_shape(columns - 1):
            raise ValueError(
                f'{columns} columns, as results have: give predictions by --results, not by --ann'
            )
        raise ValueError(
            f'{columns} columns are neither a box nor a polygon: a box has {5 + has_scores}, a '
            f'polygon {7 + has_scores}, {9 + has_scores} or more'
        )
    for word, number in zip(words, numbers, strict=True):
        if not isfinite(number):
            raise ValueError(f'{word} is not a finite number')
    if numbers[0] < 0 or numbers[0] % 1:
        raise ValueError(f'the class {words[0]} is not a whole number from 0 on')
    for word, number in zip(words[1:count], numbers[1:count], strict=True):
        if not -TOLERANCE <= number <= 1 + TOLERANCE:
            raise ValueError(f'{word} is no fraction from 0 to 1: are these pixels?')
    if count == 5 and min(numbers[3:5]) < 0:
        raise ValueError(f'the box has a negative width or height: {words[3]} {words[4]}')
    if has_scores and not 0 <= numbers[-1] <= 1:
        raise ValueError(f'the confidence {words[-1]} is not from 0 to 1')


def _is_shape(columns: int) -> bool:
    """Whether a class and a box, or a polygon of three points or more, have so many columns."""
    return columns == 5 or (columns >= 7 and columns % 2 == 1)


def _shape(fractions: list[float], height: int, width: int) -> dict:
    """bbox in pixels of a box; bbox and segmentation of a polygon."""
    if len(fractions) == 4:
        x, y, w, h = fractions
        return dict(bbox=[(x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
    xs, ys = [x * width for x in fractions[::2]], [y * height for y in fractions[1::2]]
    bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return dict(bbox=bbox, segmentation=[[x for point in zip(xs, ys, strict=True) for x in point]])


def _mask(shape: dict, size: tuple[int, int]) -> dict:
    """Run-length encoding of a polygon on an image of that height and width."""
    return mask_api.segmToRle(shape['segmentation'], size[1], size[0])
