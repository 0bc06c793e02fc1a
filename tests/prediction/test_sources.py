"""Where pictures come from, and what is said of what gives none."""

import cv2
import numpy as np
import pytest
from prediction_cases import network_camera, noise, write_video

from mmbiformer.errors import UserError
from mmbiformer.prediction.sources import Frame, batches, open_source


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(('b.png', 'a.png')):
        cv2.imwrite(str(tmp_path / name), noise(number))
    return tmp_path


def test_a_folder_in_the_order_of_names(folder):
    source = open_source(str(folder))
    frames = list(source)
    assert source.num_frames == 2
    assert [x.name for x in frames] == ['a.png', 'b.png']
    assert [x.path for x in frames] == [str(folder / 'a.png'), str(folder / 'b.png')]
    np.testing.assert_array_equal(frames[0].image, noise(1))


def test_an_image(folder):
    (frame,) = open_source(str(folder / 'a.png'))
    np.testing.assert_array_equal(frame.image, noise(1))


def test_a_video(tmp_path):
    source = open_source(str(write_video(tmp_path / 'walk.avi', 5)))
    frames = list(source)
    assert (source.num_frames, source.fps, source.problem) == (5, 10, None)
    assert [x.name for x in frames] == [f'walk_{i:06d}' for i in range(5)]
    for seed, frame in enumerate(frames):  # in order, and blue is blue
        assert np.abs(frame.image.astype(int) - noise(seed)).mean() < 8


def test_the_first_frames_of_a_video(tmp_path):
    source = open_source(str(write_video(tmp_path / 'walk.avi', 5)), max_frames=2)
    assert source.num_frames == len(list(source)) == 2
    assert source.problem is None


def test_a_video_that_is_cut_off(tmp_path):
    path = write_video(tmp_path / 'walk.avi', 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    count = len(list(source))
    assert 2 < count < 15
    assert f'ends after {count} of the 20 frames' in source.problem


def test_a_camera_of_a_network():
    with network_camera() as address:
        source = open_source(address, max_frames=3)
        frames = list(source)
    assert source.is_camera
    assert [x.name for x in frames] == [f'camera_{i:06d}' for i in range(3)]
    assert np.abs(frames[0].image.astype(int) - noise()).mean() < 8


def test_batches_hold_consecutive_frames_of_one_size():
    sizes = (2, 2, 2, 3, 3, 2)
    frames = [Frame(str(i), np.zeros((side, 4, 3))) for i, side in enumerate(sizes)]
    names = [[x.name for x in batch] for batch in batches(frames, 2)]
    assert names == [['0', '1'], ['2'], ['3', '4'], ['5']]


class TestRefusals:
    def refuse(self, text, source, **options):
        with pytest.raises(UserError, match=text):
            list(open_source(str(source), **options))

    def test_nothing(self, tmp_path):
        self.refuse(r"x\.jpg' is missing: choose an image", tmp_path / 'x.jpg')

    def test_an_empty_folder(self, tmp_path):
        self.refuse('has no image', tmp_path)

    def test_no_image(self, tmp_path):
        (tmp_path / 'x.png').write_text('text')
        self.refuse(r"x\.png' is no image", tmp_path / 'x.png')

    def test_an_image_that_is_cut_off_before_any_is_loaded(self, folder):
        path = folder / 'b.png'
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match=r"b\.png' is cut off"):
            open_source(str(folder))

    def test_no_video(self, tmp_path, capfd):
        (tmp_path / 'walk.mp4').write_text('text')
        self.refuse(r"walk\.mp4' cannot be decoded as a video", tmp_path / 'walk.mp4')
        assert capfd.readouterr().err == ''

    def test_a_camera_that_is_not_there(self, capfd):
        self.refuse('no camera 99 can be opened', 99)
        assert capfd.readouterr().err == ''

    def test_frames_of_images(self, folder):
        self.refuse('--frames is for a video or a camera', folder, max_frames=1)
        self.refuse('--frames is for a video or a camera', folder / 'a.png', max_frames=1)
