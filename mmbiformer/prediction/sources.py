"""What pictures come from: an image, a folder, a video, a camera."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmbiformer.datasets.image_files import SUFFIXES, file_problem, list_images, load_image
from mmbiformer.errors import UserError

# The number of frames that a video says it has is an estimate in some formats.
ENOUGH = 0.9
FPS = 25.0  # of what does not say its own
# FFmpeg says more lines of what is wrong than a user can use; read at OpenCV's first video.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


@dataclass
class Frame:
    """A picture to predict on.

    Attributes:
        name (str): Of the file, or for a frame of a video its name and number: 'walk_000012'.
        image (np.ndarray): uint8 (H, W, 3), blue first.
        path (str | None): Of an image file.
    """

    name: str
    image: np.ndarray
    path: str | None = None


class ImageFiles:
    """Image files, one after the other.

    Args:
        paths (Sequence[Path]): The files. All are looked at before the first is loaded.

    Raises:
        UserError: If a file is missing, cut off or no image.
    """

    fps = None
    is_camera = False
    problem = None

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if problem := file_problem(str(path)):
                raise UserError(f"'{path}' {problem}")
        self.paths = paths
        self.num_frames = len(paths)

    def __iter__(self) -> Iterator[Frame]:
        for path in self.paths:
            yield Frame(path.name, load_image(str(path)), str(path))


class Capture:
    """The frames of a video file or a camera.

    Args:
        place (str | int): A video file, the address of a stream, or the number of a camera.
        max_frames (int, optional): End after so many.

    Attributes:
        name (str): What outputs are called by.
        num_frames (int | None): As the file says; None of a camera.
        fps (float): Frames in a second, 25 where none are said.
        is_camera (bool): Whether frames come without end.
        problem (str | None): When the frames have come to their end: that some were missing.

    Raises:
        UserError: If there is none, or no frame can be read.
    """

    def __init__(self, place: str | int, max_frames: int | None = None) -> None:
        self.is_camera = isinstance(place, int) or '://' in place
        self.name = 'camera' if self.is_camera else Path(place).stem
        self.place, self.problem = place, None
        self._capture = _open_quietly(place)
        is_read, self._first = self._capture.read()
        if not is_read:
            if self.is_camera:
                raise UserError(f'no camera {place!r} can be opened: check its number or address')
            raise UserError(f"'{place}' cannot be decoded as a video: is it one, and whole?")
        said = round(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._said = 0 if self.is_camera else max(said, 0)
        known = [x for x in (self._said, max_frames) if x]
        self.num_frames = min(known) if known else None
        self._end = max_frames
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or FPS

    def __iter__(self) -> Iterator[Frame]:
        count, image, is_read = 0, self._first, True
        while is_read:
            if image.shape != self._first.shape:
                raise UserError(
                    f"frame {count} of '{self.place}' is of another size than the first: split it"
                )
            yield Frame(f'{self.name}_{count:06d}', image)
            count += 1
            if count == self._end:
                return
            is_read, image = self._capture.read()
        if count < ENOUGH * self._said:
            self.problem = (
                f"'{self.place}' ends after {count} of the {self._said} frames that it says it "
                'has, perhaps cut off: outputs are of these'
            )


def open_source(text: str, max_frames: int | None = None) -> ImageFiles | Capture:
    """An image file, a folder of images, a video file, or a camera by number or address.

    Raises:
        UserError: If there is no such thing, or nothing in it can be read.
    """
    if text.isdigit() or '://' in text:
        return Capture(int(text) if text.isdigit() else text, max_frames)
    path = Path(text)
    is_image = path.suffix.lower() in SUFFIXES
    if not path.exists():
        raise UserError(f"'{text}' is missing: choose an image, a folder, a video or a camera")
    if max_frames and (path.is_dir() or is_image):
        raise UserError('--frames is for a video or a camera')
    if path.is_dir():
        return ImageFiles(list_images(path))
    return ImageFiles([path]) if is_image else Capture(text, max_frames)


def batches(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Batches of consecutive frames of the same size.

    So none is padded for another, and what is predicted does not depend on the batch size.
    """
    for _, alike in itertools.groupby(frames, lambda frame: frame.image.shape):
        while batch := list(itertools.islice(alike, batch_size)):
            yield batch


def _open_quietly(place: str | int) -> cv2.VideoCapture:
    """Open without what OpenCV says of a failure, in several lines."""
    level = cv2.setLogLevel(0)
    try:
        return cv2.VideoCapture(place)
    finally:
        cv2.setLogLevel(level)
