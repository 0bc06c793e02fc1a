"""The embedded data set: deterministic, valid COCO, filled size bins, never half written."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from mmbiformer.datasets import shapes
from mmbiformer.datasets.shapes import CLASSES, SPLITS, make_shapes
from mmbiformer.errors import UserError

SMALL = dict(num_train=6, num_val=3, image_size=160)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', **SMALL)


def files_of(root):
    return {
        path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()
    }


def objects_of(root, split):
    coco = COCO(root / 'annotations' / f'instances_{split}.json')
    return coco, coco.loadAnns(coco.getAnnIds())


def test_equal_seeds_write_equal_files(root, tmp_path):
    assert files_of(make_shapes(tmp_path / 'again', **SMALL)) == files_of(root)


def test_other_seed_writes_other_images(root, tmp_path):
    first = 'images/training/000000.jpg'
    other = make_shapes(tmp_path / 'other', num_train=1, num_val=1, image_size=160, seed=1)
    assert (other / first).read_bytes() != (root / first).read_bytes()


def test_other_counts_keep_the_images(root, tmp_path):
    fewer = make_shapes(tmp_path / 'fewer', num_train=2, num_val=1, image_size=160)
    kept, every = files_of(fewer / 'images'), files_of(root / 'images')
    assert len(kept) == 3
    assert kept.items() <= every.items()


def test_splits_differ(root):
    first, second = ((root / f'images/{split}/000000.jpg').read_bytes() for split in SPLITS)
    assert first != second


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_are_valid_coco(root, split):
    coco, objects = objects_of(root, split)
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.imgs) == dict(training=6, validation=3)[split]
    # An annotation id of 0 counts as "not matched" in COCO's evaluation.
    ids = [one['id'] for one in coco.dataset['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    assert {one['image_id'] for one in objects} == set(coco.imgs)
    for one in objects:
        mask = coco.annToMask(one)
        x, y, width, height = cv2.boundingRect(mask)
        assert one['bbox'] == [x, y, width, height]
        assert one['area'] == mask.sum() == mask_utils.area(one['segmentation'])
        assert one['iscrowd'] == 0
        assert one['category_id'] in coco.cats


@pytest.mark.parametrize('split', SPLITS)
def test_label_maps_agree_with_the_instances(root, split):
    coco, _ = objects_of(root, split)
    for image in coco.dataset['images']:
        assert cv2.imread(str(root / 'images' / split / image['file_name'])).shape == (160, 160, 3)
        stem = image['file_name'].removesuffix('.jpg')
        labels = cv2.imread(
            str(root / 'annotations' / split / f'{stem}.png'), cv2.IMREAD_UNCHANGED
        )
        assert labels.shape == (160, 160) and labels.dtype == np.uint8
        drawn = np.zeros_like(labels)
        for one in coco.loadAnns(coco.getAnnIds(image['id'])):
            mask = coco.annToMask(one).astype(bool)
            assert not drawn[mask].any(), 'instances overlap'
            drawn[mask] = one['category_id'] + 1
        assert np.array_equal(drawn[drawn > 0], labels[drawn > 0])
        assert set(np.unique(labels[drawn == 0])) <= {shapes.OTHER, shapes.BACKGROUND}


@pytest.mark.parametrize(('split', 'num_images'), [('training', 400), ('validation', 100)])
def test_size_bins_and_classes_are_filled(split, num_images):
    layouts = [
        shapes.sample_layout(shapes.image_stream(0, split, index), image_size=192)
        for index in range(num_images)
    ]
    areas = np.array([mask.sum() for _, _, masks in layouts for mask in masks])
    small, large = np.mean(areas < 32**2), np.mean(areas > 96**2)
    assert min(small, 1 - small - large, large) > 0.15
    counts = np.bincount([label for _, labels, _ in layouts for label in labels])
    assert counts.min() > 0.1 * counts.sum()
    assert len(counts) == len(CLASSES)
    assert all(labels for _, labels, _ in layouts), 'an image without objects'


def test_second_call_changes_nothing(root):
    def times():
        return {path: path.stat().st_mtime_ns for path in root.rglob('*')}

    before = times()
    assert make_shapes(root, **SMALL) == root
    assert times() == before


def test_other_parameters_are_refused(root):
    before = files_of(root)
    with pytest.raises(ValueError, match=f'{root} .*seed=1.*remove it or choose another folder'):
        make_shapes(root, **SMALL, seed=1)
    assert files_of(root) == before


@pytest.mark.parametrize('manifest', [None, 'not json', '{"seed": 0}'])
def test_foreign_folder_is_refused(tmp_path, manifest):
    (tmp_path / 'mine.txt').write_text('mine')
    if manifest is not None:
        (tmp_path / 'shapes.json').write_text(manifest)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match='remove it or choose another folder'):
        make_shapes(tmp_path, **SMALL)
    assert files_of(tmp_path) == before


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / 'shapes').write_text('mine')
    with pytest.raises(ValueError, match='remove it or choose another folder'):
        make_shapes(tmp_path / 'shapes', **SMALL)


def test_empty_folder_is_taken(tmp_path):
    make_shapes(tmp_path, num_train=1, num_val=1, image_size=160)
    assert json.loads((tmp_path / 'shapes.json').read_text())['num_train'] == 1


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    root = tmp_path / 'shapes'

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shapes, 'label_map', interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_shapes(root, **SMALL)
    assert list(tmp_path.iterdir()) == []
    make_shapes(root, num_train=1, num_val=1, image_size=160)
    assert (root / 'shapes.json').is_file()


@pytest.mark.parametrize(
    'parameter', [dict(num_train=0), dict(num_val=0), dict(image_size=159), dict(seed=-1)], ids=str
)
def test_parameters_out_of_range_are_refused(tmp_path, parameter):
    (name,) = parameter
    with pytest.raises(ValueError, match=f'{name}=.* use at least'):
        make_shapes(tmp_path / 'shapes', **parameter)


def test_configs_name_the_classes_of_the_data_set():
    configs = Path(__file__).parents[2] / 'configs/_base_/datasets'
    palettes = set()
    for base, first in (('shapes_detection', ()), ('shapes_segmentation', ('background',))):
        cfg = Config.fromfile(configs / f'{base}.py')
        for split in ('train', 'val', 'test'):
            metainfo = cfg[f'{split}_dataloader'].dataset.metainfo
            assert tuple(metainfo.classes) == (*first, *CLASSES)
            colours = [tuple(colour) for colour in metainfo.palette]
            assert len(set(colours)) == len(metainfo.classes)
            palettes.add(tuple(colours[len(first) :]))
    assert len(palettes) == 1, 'a class has the same colour in all pictures'


def test_objects_are_spread_over_octaves():
    layouts = [
        shapes.sample_layout(shapes.image_stream(0, 'validation', index), 256, octaves=True)
        for index in range(60)
    ]
    counts = [len(masks) for _, _, masks in layouts]
    assert min(counts) >= 7 and max(counts) <= 20
    sides = np.sqrt([mask.sum() for _, _, masks in layouts for mask in masks])
    per_octave, _ = np.histogram(sides, 4 * 2.0 ** np.arange(6))
    assert per_octave.sum() == len(sides), 'outside 4 to 128 pixels'
    assert per_octave.min() > 0.12 * len(sides)
    assert np.mean(sides < 32) > 0.5


def test_data_sets_with_and_without_octaves_are_told_apart(tmp_path):
    sizes = dict(num_train=1, num_val=1)
    make_shapes(tmp_path / 'octaves', **sizes, octaves=True)
    make_shapes(tmp_path / 'octaves', **sizes, octaves=True)
    with pytest.raises(UserError, match='remove it or choose another folder'):
        make_shapes(tmp_path / 'octaves', **sizes)
