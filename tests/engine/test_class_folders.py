"""Checks of images for classification before a run starts."""

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmbiformer.engine.data import check_data, set_data_root
from mmbiformer.errors import UserError


@pytest.fixture
def root(tmp_path) -> Path:
    """The smallest folder that passes."""
    for name in ('cat', 'dog'):
        (tmp_path / 'train' / name).mkdir(parents=True)
        (tmp_path / 'train' / name / '1.jpg').touch()
    return tmp_path


def config(root: Path, num_classes: int = 2, **options) -> Config:
    dataset = dict(type='CustomDataset', data_root=str(root), data_prefix='train')
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(head=dict(num_classes=num_classes)),
            train_dataloader=dict(dataset={**dataset, **options}),
        )
    )


def check(cfg: Config) -> None:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        check_data(cfg, ('train', 'val'))


def names(*classes: str) -> dict:
    return dict(metainfo=dict(classes=classes))


def test_complete_folders_pass(root):
    check(config(root))
    check(config(root, **names('cat', 'dog')))
    check(config(root, classes=['cat', 'dog']))
    check(config(root, data_prefix=dict(img_path='train')))


def test_folders_with_other_names_than_the_classes_pass(root):
    check(config(root, **names('tabby', 'poodle')))


def test_classes_in_another_order_than_the_folders(root):
    with pytest.raises(UserError, match=r'alphabetical .* are cat, dog, and .* dog, cat: set'):
        check(config(root, **names('dog', 'cat')))


def test_a_class_that_has_no_folder(root):
    with pytest.raises(UserError, match=r'are cat, dog, and the classes .* cat, owl: set'):
        check(config(root, **names('cat', 'owl')))


def test_another_number_of_folders(root):
    with pytest.raises(UserError, match="/train' has 2 folders, and the config 3 classes"):
        check(config(root, 3, **names('a', 'b', 'c')))


def test_another_number_of_classes_than_the_head_has(root):
    with pytest.raises(UserError, match=r"num_classes=5, and the data in '.*/train' have 2 cl"):
        check(config(root, 5))


def test_folders_without_images(root):
    for path in root.rglob('*.jpg'):
        path.unlink()
    with pytest.raises(UserError, match="/train' has no images in folders of classes"):
        check(config(root))


@pytest.mark.parametrize('lacking', ['train', 'labels.txt'])
def test_lacking_parts(root, lacking):
    cfg = config(root, ann_file='labels.txt')
    if lacking == 'train':
        (root / 'train').rename(root / 'other')
        (root / 'labels.txt').touch()
    with pytest.raises(UserError, match=rf'lacks {lacking} .* expects train, labels\.txt in it'):
        check(cfg)


def test_annotation_file_passes(root):
    (root / 'labels.txt').write_text('cat/1.jpg 0\na name with spaces.jpg 1\n')
    check(config(root, ann_file='labels.txt'))


@pytest.mark.parametrize('line', ['cat/1.jpg', 'cat/1.jpg 2', 'cat/1.jpg cat', 'cat/1.jpg -1', ''])
def test_a_line_without_a_label_of_the_classes_is_named(root, line):
    (root / 'labels.txt').write_text(f'cat/1.jpg 0\n{line}\ncat/1.jpg 1\n')
    with pytest.raises(UserError, match=r"labels\.txt', line 2: .* and a label from 0 to 1"):
        check(config(root, ann_file='labels.txt'))


def test_imagenet_takes_its_split(root):
    cfg = config(root, 1000)
    cfg.train_dataloader.dataset = dict(type='ImageNet', data_root=str(root), split='train')
    with pytest.raises(UserError, match="/train' has 2 folders, and the config 1000 classes"):
        check(cfg)
    (root / 'meta').mkdir()
    (root / 'meta/train.txt').write_text('cat/1.jpg 999\ncat/1.jpg 1000\n')
    with pytest.raises(UserError, match=r"meta/train\.txt', line 2"):
        check(cfg)
    set_data_root(cfg, '/no/such/folder')
    with pytest.raises(UserError, match="'/no/such/folder' not found: the config expects train"):
        check(cfg)


def test_a_test_split_has_no_labels(root):
    cfg = config(root, 1000)
    (root / 'train').rename(root / 'test')
    cfg.train_dataloader.dataset = dict(type='ImageNet', data_root=str(root), split='test')
    check(cfg)


def test_datasets_without_such_folders_are_left_to_mmpretrain(root):
    """Their ``split`` names no folder, and some download what is not there."""
    for kind in ('CIFAR10', 'CUB'):
        cfg = config(root, 10)
        cfg.train_dataloader.dataset = dict(type=kind, data_root=str(root), split='test')
        check(cfg)
        set_data_root(cfg, '/no/such/folder')
        check(cfg)


def with_validation(cfg: Config, **options) -> Config:
    dataset = dict(cfg.train_dataloader.dataset, data_prefix='val', **options)
    cfg.val_dataloader = dict(dataset=dataset)
    return cfg


@pytest.mark.parametrize('classes', [{}, names('tabby', 'poodle')], ids=['no names', 'others'])
def test_splits_have_the_same_folders(root, classes):
    shutil.copytree(root / 'train', root / 'val')
    cfg = with_validation(config(root, **classes))
    check(cfg)
    (root / 'val/dog').rename(root / 'val/fox')
    message = r"/val': classes that are not those of '.*/train', in .*: label 1 is 'dog' and 'fox'"
    with pytest.raises(UserError, match=message):
        check(cfg)


COUNTS = {
    'preprocessor': lambda cfg: cfg.model.update(data_preprocessor=dict(num_classes=3)),
    'preprocessor of the runner': lambda cfg: cfg.update(data_preprocessor=dict(num_classes=3)),
    'label maps': lambda cfg: cfg.train_dataloader.dataset.update(
        pipeline=[dict(type='mmbiformer.classification.LoadLabelMap', folder='x', num_classes=3)]
    ),
}


@pytest.mark.parametrize('change', COUNTS.values(), ids=COUNTS)
def test_all_parts_have_as_many_classes(root, change):
    cfg = config(root)
    change(cfg)
    with pytest.raises(UserError, match=r'num_classes differ \(2 of model\.head, 3 of .+\): make'):
        check(cfg)


def test_a_model_without_a_head_passes(root):
    cfg = config(root)
    cfg.model.head = None
    check(cfg)


def test_folders_of_other_files(root):
    for path in root.rglob('*.jpg'):
        path.rename(path.with_suffix('.txt'))
    with pytest.raises(
        UserError, match=r"/train' has no images in folders of classes \(\.jpg, .*\): make"
    ):
        check(config(root))
    check(config(root, extensions=('.txt',)))


WRONG_KINDS = {
    'prefix is a file': (dict(data_prefix='file'), 'lacks file'),
    'labels are a folder': (dict(ann_file='train'), 'lacks train'),
    'labels are no text': (dict(ann_file='binary'), r"/binary' is no text file"),
    'classes are missing': (dict(classes='/no/classes.txt'), r"'/no/classes.txt' is no text file"),
    'classes are a folder': (dict(classes='/'), "'/' is no text file"),
}


@pytest.mark.parametrize(('options', 'message'), WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_files_of_the_wrong_kind(root, options, message):
    (root / 'file').write_text('x')
    (root / 'binary').write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=message):
        check(config(root, **options))
