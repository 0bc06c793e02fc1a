"""Loading steps name what they cannot load, and leave out as many as the config says."""

from pathlib import Path

import numpy as np
import pytest
from data_mutations import coco_config, pairs_config, write_coco, write_pairs
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from mmbiformer.engine.data import check_data
from mmbiformer.engine.loading import check_loading
from mmbiformer.errors import UserError


def build(cfg: Config) -> object:
    check_loading(cfg, ('train',))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(cfg.train_dataloader.dataset)


@pytest.fixture
def coco(tmp_path) -> Path:
    write_coco(tmp_path, num_images=6)
    return tmp_path


def break_images(root: Path, *numbers: int) -> None:
    for number in numbers:
        (path,) = root.glob(f'train/{number}.*')
        path.write_bytes(path.read_bytes()[:-9])


def test_what_is_whole_loads_as_without_the_check(coco) -> None:
    checked, plain = build(coco_config(coco)), coco_config(coco).train_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        plain = DATASETS.build(plain)
    for ours, theirs in zip(checked, plain, strict=True):
        assert (ours['inputs'] == theirs['inputs']).all()
        ours, theirs = ours['data_samples'].gt_instances, theirs['data_samples'].gt_instances
        assert (ours.bboxes.tensor == theirs.bboxes.tensor).all()
        assert (ours.masks.masks == theirs.masks.masks).all()


@pytest.mark.parametrize('workers', [0, 2])
def test_an_image_that_cannot_be_loaded_is_named(coco, workers) -> None:
    break_images(coco, 4)
    loader = DataLoader(build(coco_config(coco)), num_workers=workers, collate_fn=list)
    with pytest.raises(UserError, match=r"train/4\.jpg' is cut off: restore .* max_skipped=0"):
        list(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_some_are_left_out_and_counted_once(coco, workers) -> None:
    break_images(coco, 1, 4)
    cfg = coco_config(coco)
    cfg.max_skipped = 2
    dataset = build(cfg)
    loader = DataLoader(dataset, num_workers=workers, collate_fn=list)
    for _ in range(3):
        paths = [sample.img_path for batch in loader for sample in (batch[0]['data_samples'],)]
        assert len(paths) == 6 and not any('1.png' in x or '4.jpg' in x for x in paths)
    step = dataset.pipeline.transforms[0]
    assert 0 not in step.skipped[:]
    break_images(coco, 2)
    with pytest.raises(UserError, match=r"train/2\.jpg' is cut off: .* max_skipped=2 of the con"):
        list(loader)


def test_the_log_says_what_was_left_out(coco, tmp_path) -> None:
    break_images(coco, 1, 4)
    cfg = coco_config(coco)
    cfg.max_skipped = 3
    log = tmp_path / 'run.log'
    MMLogger.get_instance('skips', log_file=str(log))
    list(DataLoader(build(cfg), num_workers=2, collate_fn=list))
    text = log.read_text()
    assert 'WARNING' in text
    assert text.count('left out') == 2 and '2 of at most 3 images: it is cut off' in text


def test_an_image_of_another_size_than_its_record(coco) -> None:
    path = coco / 'train/0.jpg'
    Image.open(path).rotate(90, expand=True).save(path)
    with pytest.raises(UserError, match=r"0\.jpg' is 48x64 .* record 64x48: is it turned\?"):
        build(coco_config(coco))[0]


def test_an_image_that_vanished(coco) -> None:
    dataset = build(coco_config(coco))
    (coco / 'train/0.jpg').unlink()
    with pytest.raises(UserError, match=r"0\.jpg' is missing: restore"):
        dataset[0]


@pytest.mark.parametrize(
    ('values', 'said'),
    [
        (np.full((48, 64), 4, np.uint8), 'has labels beyond its 3 classes'),
        (np.full((24, 64), 1, np.uint8), 'is 64x24 .* and its image 64x48'),
        (np.full((48, 64), 257, np.uint16), 'has 16 bits per pixel'),
    ],
    ids=['labels', 'size', 'bits'],
)
def test_label_maps(tmp_path, values, said) -> None:
    write_pairs(tmp_path)
    Image.fromarray(values).save(tmp_path / 'maps/1.png')
    dataset = build(pairs_config(tmp_path))
    dataset[0]
    with pytest.raises(UserError, match=rf"maps/1\.png' {said}"):
        dataset[1]


def test_evaluation_never_leaves_out(coco) -> None:
    cfg = coco_config(coco, test_mode=True)
    cfg.val_dataloader, cfg.max_skipped = cfg.train_dataloader, 5
    cfg.pop('train_dataloader')
    check_loading(cfg, ('val',))
    assert cfg.val_dataloader.dataset.pipeline[0].max_skipped == 0


def test_pipelines_that_a_hook_switches_to_check_as_well(coco) -> None:
    cfg = coco_config(coco)
    steps = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=steps)]
    check_loading(cfg, ('train',))
    first, second = cfg.custom_hooks[0].switch_pipeline
    assert first.type == 'mmbiformer.LoadChecked' and second.type == 'PackDetInputs'


@pytest.mark.parametrize('value', [-1, True, '3', 0.5])
def test_max_skipped_is_a_number(coco, value) -> None:
    cfg = coco_config(coco)
    cfg.max_skipped = value
    for check in (check_loading, check_data):
        with pytest.raises(UserError, match=r'max_skipped=.* must be a number of images'):
            check(cfg, ('train',))


def test_what_another_file_backend_reads_is_left_to_it(coco) -> None:
    dataset = build(coco_config(coco))
    step = dataset.pipeline.transforms[0]
    step.step.transform = lambda results: {**results, 'img': np.zeros((48, 64, 3), np.uint8)}
    assert step(dict(img_path='s3://a/b.jpg'))['img'].shape == (48, 64, 3)
    assert step(dict(img_path='a/b.jpg'))['img'].shape == (48, 64, 3)
