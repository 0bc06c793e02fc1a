"""tools/predict.py as its users run it."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from PIL import Image
from prediction_cases import (
    DETECTOR,
    SEGMENTER,
    network_camera,
    noise,
    read_video,
    untrained,
    write_video,
)
from toolbox import CONFIGS, IN_PROCESS, ROOT, SAMPLES, run_tool

from mmbiformer.datasets.shapes import make_shapes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The generated shapes, and a checkpoint of each task."""
    folder = tmp_path_factory.mktemp('predict')
    make_shapes(folder / 'shapes', num_train=1, num_val=3)
    for config in (DETECTOR, SEGMENTER):
        untrained(config, folder)
    return folder


def run(folder, source, *args, config=DETECTOR):
    checkpoint = folder / f'{config.stem}.pth'
    run_tool('predict', source, config, checkpoint, *args, '--device', 'cpu')


def test_a_detector_gives_what_its_evaluation_writes(folder, tmp_path, capsys):
    shapes = folder / 'shapes'
    given = shapes / 'annotations/instances_validation.json'
    args = '--annotations', given, '--batch-size', 2, '--out-dir', tmp_path / 'out'
    run(folder, shapes / 'images/validation', *args)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [str(tmp_path / 'out' / x) for x in ('pictures', 'predictions.json')]
    pictures = sorted(x.name for x in (tmp_path / 'out/pictures').iterdir())
    assert pictures == [f'00000{i}.jpg' for i in range(3)]
    options = [*IN_PROCESS, f'test_evaluator.outfile_prefix={tmp_path / "test"}']
    args = '--data-root', shapes, '--work-dir', tmp_path / 'work', '--cfg-options', *options
    run_tool('test', DETECTOR, folder / f'{DETECTOR.stem}.pth', *args)
    expected = json.loads((tmp_path / 'test.bbox.json').read_text())
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(found) == len(expected) > 20
    for one, other in zip(found, expected, strict=True):
        assert one['image_id'] == other['image_id']
        assert one['category_id'] == other['category_id']
        assert one['score'] == pytest.approx(other['score'], abs=1e-4)
        assert one['bbox'] == pytest.approx(other['bbox'], abs=1e-2)


def test_a_segmenter_gives_the_maps_that_its_evaluation_writes(folder, tmp_path):
    shapes = folder / 'shapes'
    args = '--out-dir', tmp_path / 'out'
    run(folder, shapes / 'images/validation', *args, config=SEGMENTER)
    args = '--data-root', shapes, '--work-dir', tmp_path / 'work', '--out', tmp_path / 'maps'
    checkpoint = folder / f'{SEGMENTER.stem}.pth'
    run_tool('test', SEGMENTER, checkpoint, *args, '--cfg-options', *IN_PROCESS)
    for i in range(3):
        found, expected = (
            np.array(Image.open(tmp_path / x / f'00000{i}.png')) for x in ('out/labels', 'maps')
        )
        np.testing.assert_array_equal(found, expected)
        assert found.min() >= 1  # reduce_zero_label: 0 is no class
        assert (tmp_path / f'out/pictures/00000{i}.jpg').exists()


def test_a_video(folder, tmp_path):
    source = write_video(tmp_path / 'walk.avi', 4)
    run(folder, source, '--out-dir', tmp_path / 'out', '--score-threshold', 1)
    frames, fps = read_video(tmp_path / 'out/walk.mp4')
    assert (len(frames), fps) == (4, 10)
    for seed, frame in enumerate(frames):  # nothing scores 1: the pictures are those of the video
        assert np.abs(frame.astype(int) - noise(seed)).mean() < 10
    images = json.loads((tmp_path / 'out/images.json').read_text())['images']
    assert [x['file_name'] for x in images] == [f'walk_00000{i}' for i in range(4)]
    numbers = {x['image_id'] for x in json.loads((tmp_path / 'out/predictions.json').read_text())}
    assert numbers == {1, 2, 3, 4}


def test_a_camera_for_some_frames(folder, tmp_path):
    with network_camera() as address:
        args = '--frames', 2, '--out-dir', tmp_path
        run(folder, address, *args, config=SEGMENTER)
    assert len(read_video(tmp_path / 'camera.mp4')[0]) == 2
    labels = sorted(x.name for x in (tmp_path / 'labels').iterdir())
    assert labels == ['camera_000000.png', 'camera_000001.png']


def test_ctrl_c_ends_a_camera(folder, tmp_path):
    checkpoint = folder / f'{DETECTOR.stem}.pth'
    with network_camera() as address:
        args = address, DETECTOR, checkpoint, '--out-dir', tmp_path, '--device', 'cpu'
        command = [sys.executable, ROOT / 'tools/predict.py', *args]
        with subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE) as tool:
            os.set_blocking(tool.stderr.fileno(), False)
            said, began = b'', time.monotonic()
            while b'3image' not in said:  # the progress bar
                said += tool.stderr.read() or b''
                assert tool.poll() is None, said
                assert time.monotonic() - began < 100, said
                time.sleep(0.05)
            tool.send_signal(signal.SIGINT)
            assert tool.wait(60) == 0
    frames, _ = read_video(tmp_path / 'camera.mp4')
    images = json.loads((tmp_path / 'images.json').read_text())['images']
    assert len(images) == len(frames) >= 3
    assert (tmp_path / 'predictions.json').exists()


@pytest.mark.skipif(
    not find_spec('sahi'), reason='SAHI is not installed: pip install -e ".[sahi]"'
)
def test_slices(folder, tmp_path):
    cv2.imwrite(str(tmp_path / 'large.png'), noise(0, 128, 160))
    for args in ((), ('--sliced', 96, '--batch-size', 4)):
        run(folder, tmp_path / 'large.png', *args, '--out-dir', tmp_path / f'out{len(args)}')
    plain, sliced = (
        json.loads((tmp_path / f'out{i}/predictions.json').read_text()) for i in (0, 4)
    )
    assert len(sliced) > len(plain) > 0


class TestWrongInput:
    """One line that names what is wrong, and exit code 2."""

    @pytest.fixture
    def refused(self, folder, tmp_path, capsys):
        def refused(text, source, *args, config=DETECTOR):
            with pytest.raises(SystemExit) as stop:
                run(folder, source, '--out-dir', tmp_path / 'out', *args, config=config)
            assert stop.value.code == 2
            last = capsys.readouterr().err.strip().splitlines()[-1]
            assert last.startswith('error: ')
            assert text in last
            return tmp_path / 'out'

        return refused

    @pytest.fixture
    def image(self, folder):
        return folder / 'shapes/images/validation/000000.jpg'

    def test_a_video_that_is_cut_off(self, tmp_path, refused):
        path = write_video(tmp_path / 'walk.avi', 20)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
        out = refused('of the 20 frames that it says it has, perhaps cut off', path)
        frames, _ = read_video(out / 'walk.mp4')  # what could be read is there
        assert len(json.loads((out / 'images.json').read_text())['images']) == len(frames) > 0

    def test_an_image_that_cannot_be_decoded_leaves_no_results(self, folder, tmp_path, refused):
        images = tmp_path / 'images'
        images.mkdir()
        cv2.imwrite(str(images / 'a.png'), noise())
        (images / 'b.bmp').write_text('text')
        out = refused("b.bmp' is no image", images)
        assert [x.name for x in out.iterdir()] == ['pictures']

    def test_annotations_of_a_video_and_for_a_segmenter(self, tmp_path, image, refused):
        video = write_video(tmp_path / 'walk.avi', 2)
        refused('--annotations is for images', video, '--annotations', 'x.json')
        args = '--annotations', 'x.json'
        refused('--annotations is for detectors', image, *args, config=SEGMENTER)

    def test_slices_of_a_segmenter(self, image, refused):
        refused('--sliced is for detectors', image, '--sliced', config=SEGMENTER)

    def test_no_sahi(self, image, refused, monkeypatch):
        monkeypatch.setitem(sys.modules, 'sahi', None)
        for name in [x for x in sys.modules if x.startswith('sahi.')]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, 'mmbiformer.prediction.sliced', raising=False)
        refused("is not installed: pip install -e '.[sahi]'", image, '--sliced')

    def test_numbers_below_one(self, image, refused):
        for name in ('--batch-size', '--frames', '--sliced'):
            refused(f'{name} 0: choose 1 or more', image, name, 0)

    def test_outputs_over_the_source(self, tmp_path, image, refused):
        """Neither a folder of pictures nor a video is replaced by what is drawn on it."""
        folder = tmp_path / 'pictures'
        folder.mkdir()
        (folder / 'a.png').write_bytes(image.read_bytes())
        refused("a.png' would be replaced: choose another", folder, '--out-dir', tmp_path)
        assert (folder / 'a.png').read_bytes() == image.read_bytes()
        path = tmp_path / 'walk.mp4'
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 5, (64, 48))
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
        content = path.read_bytes()
        refused("walk.mp4' would be replaced: choose another", path, '--out-dir', tmp_path)
        assert path.read_bytes() == content

    def test_label_maps_that_are_there(self, tmp_path, image, refused):
        (tmp_path / 'labels').mkdir()
        (tmp_path / f'labels/{image.stem}.png').write_bytes(b'ground truth')
        refused('is there: choose another', image, '--out-dir', tmp_path, config=SEGMENTER)
        assert (tmp_path / f'labels/{image.stem}.png').read_bytes() == b'ground truth'

    def test_a_threshold_that_is_no_score(self, image, refused):
        refused('--score-threshold 2: choose from 0 to 1', image, '--score-threshold', 2)

    def test_a_device_that_is_none(self, folder, image, tmp_path, capsys):
        checkpoint = folder / f'{DETECTOR.stem}.pth'
        with pytest.raises(SystemExit):
            run_tool('predict', image, DETECTOR, checkpoint, '--device', 'gpu')
        assert "device 'gpu' cannot be used" in capsys.readouterr().err


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f'no real samples in {SAMPLES}')
def test_real_images(tmp_path):
    config = CONFIGS / 'fpn_biformer-t_8xb4-80k_ade20k-512x512.py'
    untrained(config, tmp_path)
    (image, *_) = sorted((SAMPLES / 'ade20k_sample').rglob('*_val_*3.jpg'))
    run(tmp_path, image, '--out-dir', tmp_path / 'out', config=config)
    labels = np.array(Image.open(tmp_path / f'out/labels/{image.stem}.png'))
    assert labels.shape == cv2.imread(str(image)).shape[:2]
    assert labels.min() >= 1
    assert labels.max() <= 150
