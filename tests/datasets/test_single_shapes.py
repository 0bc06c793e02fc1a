"""The embedded classification set: deterministic, balanced, one shape each, never half written."""

import json

import cv2
import numpy as np
import pytest

from mmbiformer.datasets import single_shapes
from mmbiformer.datasets.shapes import CLASSES, SPLITS
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.errors import UserError

SMALL = dict(num_train=12, num_val=6)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_single_shapes(tmp_path_factory.mktemp('data') / 'single', **SMALL)


def files_of(root):
    return {
        path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()
    }


def test_each_class_has_a_folder_with_as_many_images(root):
    for split, count in zip(SPLITS, SMALL.values(), strict=True):
        images = {
            x.name: sorted((root / split / x.name).iterdir()) for x in (root / split).iterdir()
        }
        assert images.keys() == set(CLASSES)
        assert {len(paths) for paths in images.values()} == {count // len(CLASSES)}
        names = [path.name for paths in images.values() for path in paths]
        assert len(set(names)) == count
        assert {cv2.imread(str(x)).shape for paths in images.values() for x in paths} == {
            (64, 64, 3)
        }


def test_equal_seeds_write_equal_files_and_other_seeds_others(root, tmp_path):
    assert files_of(make_single_shapes(tmp_path / 'again', **SMALL)) == files_of(root)
    other = files_of(make_single_shapes(tmp_path / 'other', **SMALL, seed=1))
    assert not set(other.values()) & set(files_of(root).values())


def test_other_counts_keep_the_images(root, tmp_path):
    fewer = files_of(make_single_shapes(tmp_path / 'fewer', num_train=6, num_val=6))
    kept = {path: x for path, x in fewer.items() if path.suffix == '.jpg'}
    assert len(kept) == 12
    assert kept.items() <= files_of(root).items()


def test_shapes_have_the_hue_of_their_class(root):
    """The hue of what differs most from the border, in sixths of a turn."""
    for path in (root / 'training').rglob('*.jpg'):
        image = cv2.imread(str(path)).astype(np.float32) / 255
        hue, saturation, _ = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        wanted = 60 * CLASSES.index(path.parent.name)
        distance = np.abs((hue - wanted + 180) % 360 - 180)
        # The smallest shape covers 4.8 % of an image, and its saturation is 0.5 or more.
        assert ((distance < 30) & (saturation > 0.3)).mean() > 0.03, path


def test_folder_says_its_parameters_and_holds_nothing_else(root, tmp_path):
    assert json.loads((root / 'single_shapes.json').read_text())['num_train'] == 12
    assert make_single_shapes(root, **SMALL) == root
    with pytest.raises(UserError, match=r'is not the single shapes data set with .*num_train=6'):
        make_single_shapes(root, num_train=6, num_val=6)
    (tmp_path / 'other.txt').touch()
    with pytest.raises(UserError, match='remove it or choose another'):
        make_single_shapes(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ('name', 'value', 'least'),
    [('num_train', 5, 6), ('num_val', 0, 6), ('seed', -1, 0)],
)
def test_parameters_out_of_range(tmp_path, name, value, least):
    with pytest.raises(ValueError, match=f'{name}={value} is too small: use at least {least}'):
        make_single_shapes(tmp_path / 'no', **{name: value})
    assert not (tmp_path / 'no').exists()


def test_an_abort_leaves_nothing(tmp_path, monkeypatch):
    def abort(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(single_shapes, '_draw', abort)
    with pytest.raises(KeyboardInterrupt):
        make_single_shapes(tmp_path / 'no', **SMALL)
    assert not list(tmp_path.iterdir())


def test_two_processes_make_one(tmp_path, monkeypatch):
    """The other one is finished first."""
    draw = single_shapes._draw

    def draw_behind_the_other(*arguments):
        monkeypatch.setattr(single_shapes, '_draw', draw)
        make_single_shapes(folder, **other)
        return draw(*arguments)

    folder, other = tmp_path / 'single', SMALL
    monkeypatch.setattr(single_shapes, '_draw', draw_behind_the_other)
    root = make_single_shapes(folder, **SMALL)
    assert files_of(root).keys() == files_of(make_single_shapes(tmp_path / 'a', **SMALL)).keys()
    assert {path.name for path in tmp_path.iterdir()} == {'single', 'a'}, 'scratch folders'
    # Of other parameters it is none of ours.
    folder, other = tmp_path / 'third', dict(num_train=6, num_val=6)
    monkeypatch.setattr(single_shapes, '_draw', draw_behind_the_other)
    with pytest.raises(OSError, match='not empty'):
        make_single_shapes(folder, **SMALL)
