"""What is wrong with images on disk."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmbiformer.datasets.image_files import (
    file_problem,
    image_problem,
    list_images,
    load_image,
)
from mmbiformer.errors import UserError


@pytest.fixture
def picture(tmp_path) -> Path:
    """A JPEG of 64x48 pixels."""
    path = tmp_path / 'x.jpg'
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def test_a_whole_image_is_fine(picture) -> None:
    assert image_problem(str(picture)) is None
    assert image_problem(str(picture), (48, 64)) is None


def test_a_jpeg_that_was_cut_off_decodes_and_is_refused(picture) -> None:
    content = picture.read_bytes()
    for length in (len(content) // 2, len(content) - 1):
        picture.write_bytes(content[:length])
        assert cv2.imread(str(picture)) is not None
        assert image_problem(str(picture)) == 'is cut off'


def test_what_follows_the_end_of_a_jpeg_does_not_matter(picture) -> None:
    picture.write_bytes(picture.read_bytes() + b'something')
    assert image_problem(str(picture)) is None


def test_the_end_of_a_preview_is_not_the_end(picture) -> None:
    content = picture.read_bytes()
    preview = b'\xff\xe1\x00\x06\xff\xd8\xff\xd9'
    picture.write_bytes(content[:2] + preview + content[2:-9])
    assert file_problem(str(picture)) == 'is cut off'


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html>', 'is a web page'),
        (b'hello, world', 'is no image that OpenCV reads'),
        (b'\xff\xd8\xff\xd9', 'is no image that OpenCV reads'),
        (b'\x89PNG\r\n\x1a\n', 'is cut off'),
    ],
)
def test_files_that_are_no_images(picture, content, problem) -> None:
    picture.write_bytes(content)
    assert image_problem(str(picture)).startswith(problem)


def test_what_is_no_file(tmp_path) -> None:
    assert image_problem(str(tmp_path / 'no.jpg')) == 'is missing'
    assert 'cannot be opened' in image_problem(str(tmp_path))
    assert 'cannot be opened' in image_problem('a\0b')


def test_every_changed_byte_of_a_png_is_found(tmp_path) -> None:
    """A label map with another byte may decode, to other labels."""
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), np.arange(64, dtype=np.uint8).reshape(8, 8))
    content = path.read_bytes()
    assert file_problem(str(path)) is None
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        assert image_problem(str(path)) or Image.open(path).format != 'PNG', place


def test_sizes_as_exif_turns_them(picture) -> None:
    with Image.open(picture) as image:
        exif = image.getexif()
        exif[274] = 6
        image.save(picture, exif=exif)
    assert cv2.imread(str(picture)).shape[:2] == (64, 48)
    assert image_problem(str(picture), (64, 48)) is None
    said = 'is 48x64 (width x height), and its record 64x48: is it turned?'
    assert image_problem(str(picture), (48, 64)) == said


def test_a_header_that_claims_any_size_is_not_decoded(tmp_path) -> None:
    path = tmp_path / 'x.bmp'
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[18:22] = (9_000).to_bytes(4, 'little')
    content[22:26] = (9_000).to_bytes(4, 'little')
    path.write_bytes(content)
    assert 'is 9000x9000' in image_problem(str(path), (8, 8))


def test_images_of_a_folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'notes.txt'):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ['a.jpg', 'b.PNG']


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match='has no image'):
        list_images(tmp_path)


def test_an_image_is_loaded_as_it_is(tmp_path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 2] = 255  # red
    cv2.imwrite(str(tmp_path / 'red.png'), image)
    np.testing.assert_array_equal(load_image(str(tmp_path / 'red.png')), image)


def test_what_is_no_image_is_not_loaded(tmp_path) -> None:
    (tmp_path / 'x.png').write_text('text')
    with pytest.raises(UserError, match=r"x\.png' is no image that OpenCV reads"):
        load_image(str(tmp_path / 'x.png'))
