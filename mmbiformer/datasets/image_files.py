"""Image files: listed, loaded, and what is wrong with one or a label map, in a few words."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mmbiformer.errors import UserError

IGNORED = 255
SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
JPEG, JPEG_SCAN, JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
PNG = b'\x89PNG\r\n\x1a\n'
ORIENTATION = 274  # the EXIF tag; from 5 on width and height change places


class Labels(NamedTuple):
    """Which values a label map may have.

    Attributes:
        num_classes (int): Values of classes.
        reduce_zero_label (bool): Whether 0 is no class, and class 0 has the value 1.
    """

    num_classes: int
    reduce_zero_label: bool = False

    def problem(self, values: np.ndarray) -> str | None:
        """What is wrong with the values of a map as its file has them, 255 aside."""
        last = self.num_classes - 1 + int(self.reduce_zero_label)
        wrong = (values > last) & (values != IGNORED)
        if not wrong.any():
            return None
        zero = ' (0 is none, as reduce_zero_label says)' if self.reduce_zero_label else ''
        return (
            f'has the label {values[wrong].max()} at {wrong.sum():,} pixels, and its '
            f'{self.num_classes} classes end at {last}{zero}'
        )


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder, in the order of their names.

    Raises:
        UserError: If it has none.
    """
    paths = sorted(x for x in Path(folder).iterdir() if x.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"'{folder}' has no image: choose a folder of images, or one of them")
    return paths


def file_problem(path: str) -> str | None:
    """What is wrong with an image file before it is decoded.

    A JPEG that was cut off decodes in part, and training would take what is missing for grey. In
    a PNG a changed byte may decode, to other labels; its checksums tell.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(8)
            if not head:
                return 'is empty'
            if head.lstrip()[:1] == b'<':
                return 'is a web page or XML and no image, as failed downloads are'
            if head.startswith(JPEG):
                file.seek(-2, os.SEEK_END)
                # Some programs write something behind the end.
                ends = file.read() == JPEG_END or _has_end(Path(path).read_bytes())
                return None if ends else 'is cut off'
            return _png_problem(file.read()) if head == PNG else None
    except FileNotFoundError:
        return 'is missing'
    except (OSError, ValueError) as error:
        return f'cannot be opened ({getattr(error, "strerror", None) or error})'


def _has_end(content: bytes) -> bool:
    """Whether a JPEG ends; a preview in its header has an end of its own."""
    return JPEG_END in content[max(content.rfind(JPEG_SCAN), 0) :]


def _png_problem(chunks: bytes) -> str | None:
    """What is wrong with the chunks of a PNG: length, type, content and checksum of each."""
    start = 0
    while start + 12 <= len(chunks):
        length, kind = (
            int.from_bytes(chunks[start : start + 4], 'big'),
            chunks[start + 4 : start + 8],
        )
        stop = start + 8 + length
        if stop + 4 > len(chunks):
            break
        if zlib.crc32(chunks[start + 4 : stop]) != int.from_bytes(chunks[stop : stop + 4], 'big'):
            return 'is damaged (a checksum of the PNG is wrong)'
        if kind == b'IEND':
            return None
        start = stop + 4
    return 'is cut off'


def image_problem(path: str, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with an image, decoded as mmcv does.

    Args:
        path (str): The file.
        size (tuple[int, int], optional): Height and width that it must have.
    """
    if problem := file_problem(path):
        return problem
    said = image_size(path)
    if size and said and said != tuple(size):  # before it is decoded: a header may claim any
        return size_problem(said, size)
    image = _decode(path)
    if isinstance(image, str):
        return image
    if size and image.shape[:2] != tuple(size):
        return size_problem(image.shape[:2], size)
    return None


def load_image(path: str) -> np.ndarray:
    """An image file as mmcv decodes it: uint8 (H, W, 3), blue first.

    Raises:
        UserError: If it is missing or no whole image.
    """
    image = file_problem(path) or _decode(path)
    if isinstance(image, str):
        raise UserError(f"'{path}' {image}")
    return image


def _decode(path: str) -> np.ndarray | str:
    """The image, or what is wrong with it."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError, OSError) as error:
        return f'cannot be decoded ({" ".join(str(error).split())[:120]})'
    return 'is no image that OpenCV reads' if image is None else image


def size_problem(actual: tuple[int, int], size: tuple[int, int], whose: str = 'record') -> str:
    """How messages say that an image is of another size than its record or image."""
    turned = ': is it turned?' if tuple(actual) == tuple(size)[::-1] else ''
    return (
        f'is {actual[1]}x{actual[0]} (width x height), and its {whose} {size[1]}x{size[0]}{turned}'
    )


def label_map_problem(path: str, labels: Labels, size: tuple[int, int] | None) -> str | None:
    """What is wrong with a label map, decoded as mmseg does.

    Args:
        path (str): The file.
        labels (Labels): Which values it may have.
        size (tuple[int, int], optional): Height and width of its image.
    """
    if problem := file_problem(path) or deep_problem(path):
        return problem
    try:
        with Image.open(path) as image:
            if image.mode not in ('1', 'L', 'P'):
                return (
                    f'is of mode {image.mode}, and a label map has one channel of 8 bits: give '
                    'the maps of labels and not coloured pictures of them'
                )
            if size and image.size[::-1] != tuple(size):
                return size_problem(image.size[::-1], size, whose='image')
            values = np.array(image)
    except Exception as error:  # of many kinds, by format
        return f'cannot be decoded ({" ".join(str(error).split())[:120]})'
    return labels.problem(values)


def deep_problem(path: str) -> str | None:
    """What is wrong with a PNG of 16 bits as a label map."""
    with open(path, 'rb') as file:
        head = file.read(25)
    if head.startswith(PNG) and head[24:] == b'\x10':
        return 'has 16 bits per pixel, of which mmseg reads the lower 8: write labels as 8 bits'
    return None


def image_size(path: str) -> tuple[int, int] | None:
    """Height and width that the header of an image says, turned as EXIF says; None for none."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            return (width, height) if turned else (height, width)
    except Exception:  # of many kinds, by format; OpenCV reads formats that Pillow does not
        return None
