"""Drawings of the worst images: the right boxes, each photo once, and nothing lost in silence."""

import base64
import copy
import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from size_reports import make_report

from mmbiformer.evaluation.report import drawing
from mmbiformer.evaluation.report.drawing import Shape, close_up, draw_worst_images, place_labels
from mmbiformer.evaluation.report_data import ShownDetection, ShownObject, WorstImage


@pytest.fixture(scope='module')
def report():
    return make_report()


@pytest.fixture
def folder(report, tmp_path):
    """Every image as a file, each of its own colour."""
    for i, image in enumerate(images_of(report).values()):
        write_image(tmp_path / image.file_name, np.full((200, 200, 3), (20 * i, 99, 200)))
    return tmp_path


def images_of(report):
    worst = [x for model in report.models for images in model.worst_images for x in images]
    return {x.id: x for x in worst}


def write_image(path, pixels):
    assert cv2.imwrite(str(path), pixels.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])


def pixels_of(photo):
    content = base64.b64decode(photo.uri.removeprefix('data:image/jpeg;base64,'))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def shapes_of(image):
    return [(tuple(x.box), 'found' if x.found else 'missed') for x in image.objects] + [
        (tuple(x.box), 'false') for x in image.detections
    ]


def test_every_worst_image_is_drawn_with_its_boxes(report, folder):
    album = draw_worst_images(report, folder)
    assert not album.notices
    count = 0
    for i, model in enumerate(report.models):
        for a, images in enumerate(model.worst_images):
            drawings = album.drawings.get((i, a), [])
            assert [x.image for x in drawings] == images
            count += len(images)
            for drawn in drawings:
                found = [(x.box, x.kind) for x in drawn.shapes]
                assert sorted(found) == sorted(shapes_of(drawn.image))
                assert drawn.views[0].window == (0, 0, 200, 200)
                assert drawn.problem is None
    assert count > 20


def test_each_photo_is_kept_once(report, folder):
    album = draw_worst_images(report, folder)
    wanted = images_of(report)
    assert len(album.photos) == len(wanted) > 5
    photos = {x.key: x for x in album.photos}
    for drawings in album.drawings.values():
        for drawn in drawings:
            (key,) = {x.photo for x in drawn.views}
            pixel = pixels_of(photos[key])[5, 5].astype(int)
            blue = 20 * list(wanted).index(drawn.image.id)
            assert np.abs(pixel - (blue, 99, 200)).max() < 9


def test_labels_and_descriptions(report):
    report = copy.deepcopy(report)
    images = report.models[0].worst_images[0]
    images[0] = replace(
        images[0],
        objects=[ShownObject([1, 2, 30, 40.25], '<b>', found=x) for x in (True, False)],
        detections=[ShownDetection([9, 9, 9, 9], 'cat', 0.876, x) for x in ('both', None)],
    )
    drawn = draw_worst_images(report).drawings[0, 0][0]
    assert [(x.kind, x.label, x.description) for x in drawn.shapes] == [
        ('found', '', 'found: <b>'),
        ('missed', '<b>', 'missed: <b>'),
        ('false', 'cat 0.88 both', 'false: cat 0.88, both'),
        ('false', 'cat 0.88', 'false: cat 0.88, in this range alone'),
    ]
    assert drawn.shapes[0].path == 'M1 2h30v40.2h-30z'


def test_without_a_folder(report):
    album = draw_worst_images(report)
    count = len(images_of(report))
    assert len(album.notices) == 1
    assert re.fullmatch(
        rf'{count} of {count} worst images are drawn on grey \(first \d+\.jpg\): no image folder '
        'was given',
        album.notices[0],
    )
    assert not album.photos
    for drawings in album.drawings.values():
        for drawn in drawings:
            assert drawn.problem == 'no image folder was given'
            assert {x.photo for x in drawn.views} == {None}
            assert drawn.views[0].window == (0, 0, 200, 200)


def test_images_that_cannot_be_shown(report, folder):
    report = copy.deepcopy(report)
    first, second, third, fourth, fifth, *rest = images_of(report).values()
    (folder / first.file_name).unlink()
    (folder / second.file_name).write_bytes(b'no image')
    (folder / third.file_name).write_bytes(b'')
    write_image(folder / fourth.file_name, np.zeros((100, 200, 3)))
    for model in report.models:
        for images in model.worst_images:
            images[:] = [replace(x, file_name=None) if x.id == fifth.id else x for x in images]
    album = draw_worst_images(report, folder)
    assert len(album.photos) == len(rest) > 1
    name = first.file_name
    assert f"({name}): no such file in '{folder}'" in album.notices[0]
    total = len(rest) + 5
    assert any(
        x.startswith(f'2 of {total} ') and x.endswith('that can be read') for x in album.notices
    )
    assert any('height and width are not those' in x for x in album.notices)
    assert f'image {fifth.id}' in ''.join(album.notices)
    assert len(album.notices) == 4
    problems = {x.image.id: x.problem for y in album.drawings.values() for x in y}
    assert sum(x is not None for x in problems.values()) == 5


def test_an_image_of_unknown_size(report):
    report = copy.deepcopy(report)
    images = report.models[0].worst_images[0]
    objects = [ShownObject([10, 20, 300, 100], 'x', found=False)]
    images[0] = replace(images[0], height=None, width=None, detections=[], objects=objects)
    assert draw_worst_images(report).drawings[0, 0][0].views[0].window == (0, 0, 310, 120)


def wrong(*box):
    return Shape('missed', box, 'name', '')


def test_close_up_shows_most_of_what_is_wrong():
    shapes = [wrong(500, 100, 8, 8), wrong(20, 300, 8, 8), wrong(50, 310, 8, 8)]
    x, y, width, height = close_up([*shapes, Shape('found', (600, 10, 8, 8), '', '')], (640, 480))
    assert width == height == 72
    # The two that are near each other, in the middle.
    assert (x + width / 2, y + height / 2) == pytest.approx((39, 309))


def test_close_up_stays_in_the_image():
    for corner in ((0, 0), (632, 472), (-4, 476)):
        x, y, width, height = close_up([wrong(*corner, 8, 8)], (640, 480))
        assert x >= 0 and y >= 0 and x + width <= 640 and y + height <= 480


@pytest.mark.parametrize('box', [(0, 0, 60, 60), (10, 10, 200, 100)])
def test_no_close_up_of_what_is_large_anyway(box):
    assert close_up([wrong(*box)], (640, 480)) is None


def test_close_up_of_boxes_without_area():
    assert close_up([wrong(100, 100, 0, 0)], (640, 480))[2] == drawing.SMALLEST_CLOSE_UP


def test_close_up_of_a_large_image_has_its_pixels(tmp_path):
    """Stripes of one pixel are gone from a reduced photo, not from its close-up."""
    pixels = np.zeros((3000, 4000, 3))
    pixels[:, ::2] = 255
    write_image(tmp_path / 'large.jpg', pixels)
    image = WorstImage(
        missed=1,
        false=0,
        objects=[ShownObject([3000, 2000, 8, 8], 'x', found=False)],
        detections=[],
        id=1,
        file_name='large.jpg',
        height=3000,
        width=4000,
    )
    report = SimpleNamespace(models=[SimpleNamespace(worst_images=[[image]])])
    album = draw_worst_images(report, tmp_path)
    whole, part = album.photos
    assert whole.is_reduced and whole.window == (0, 0, 4000, 3000)
    assert max(pixels_of(whole).shape) <= 1024
    assert not part.is_reduced
    contrast = np.ptp(pixels_of(part)[20], axis=0)
    assert contrast.min() > 150 > np.ptp(pixels_of(whole)[20], axis=0).max()
    first, second = album.drawings[0, 0][0].views
    assert (first.photo, second.photo) == (whole.key, part.key)
    x, y, width, height = second.window
    left, top, part_width, part_height = part.window
    assert left <= x and top <= y
    assert x + width <= left + part_width and y + height <= top + part_height


def test_photos_of_many_images_get_smaller(report, folder, monkeypatch):
    rng = np.random.default_rng(0)
    for image in images_of(report).values():
        write_image(folder / image.file_name, rng.integers(0, 256, (200, 200, 3)))
    full = sum(len(x.uri) for x in draw_worst_images(report, folder).photos) * 3 / 4
    monkeypatch.setattr(drawing, 'PHOTO_BYTES', int(0.6 * full))
    photos = draw_worst_images(report, folder).photos
    assert sum(len(x.uri) for x in photos) * 3 / 4 <= 0.61 * full
    assert all(pixels_of(x).shape == (200, 200, 3) for x in photos)


def test_labels_do_not_overlap_and_stay_inside():
    rng = np.random.default_rng(1)
    boxes = rng.uniform(-10, 290, (60, 4)) * (1, 1, 0.1, 0.1)
    shapes = [wrong(*box) for box in boxes.tolist()]
    shapes.append(Shape('found', (10, 10, 9, 9), '', ''))
    shapes.append(wrong(900, 900, 9, 9))
    labels = place_labels(shapes, (0, 0, 300, 200), 8)
    assert 10 < len(labels) < 60
    length = 4 * 8 * drawing.LETTER_WIDTH
    for i, (x, y, kind, text) in enumerate(labels):
        assert (kind, text) == ('missed', 'name')
        assert 0 <= x <= 300 - length + 0.1 and 8 <= y <= 200
        for other_x, other_y, *_ in labels[:i]:
            assert abs(x - other_x) > length - 0.2 or abs(y - other_y) > 8
