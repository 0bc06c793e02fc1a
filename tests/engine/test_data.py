"""Checks of the data folder before a run starts."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmbiformer.engine.data import check_data, read_category_names, set_data_root
from mmbiformer.errors import UserError


@pytest.fixture
def coco(tmp_path) -> Path:
    """The smallest folder that passes."""
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/1.jpg').touch()
    (tmp_path / 'train.json').write_text(annotations('cat', 'dog', 'owl'))
    return tmp_path


def annotations(*names: str) -> str:
    categories = [{'id': i, 'name': name} for i, name in enumerate(names)]
    return json.dumps({'images': [], 'categories': categories, 'annotations': []})


def config(root: Path, **options) -> Config:
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=('cat', 'dog')),
    )
    return Config(
        dict(default_scope='mmdet', train_dataloader=dict(dataset={**dataset, **options}))
    )


def test_complete_folder_passes(coco) -> None:
    check_data(config(coco), ('train', 'val'))


def test_missing_root(coco) -> None:
    with pytest.raises(UserError, match=r"data root '.*/no' not found: .*train/.*--data-root"):
        check_data(config(coco / 'no'), ('train',))


@pytest.mark.parametrize('lacking', ['train', 'train.json', 'train/1.jpg'])
def test_lacking_parts(coco, lacking) -> None:
    path = coco / lacking
    if path.is_dir():
        (path / '1.jpg').unlink()
        path.rmdir()
    else:
        path.unlink()
    name = 'train.json' if lacking == 'train.json' else 'train/'
    with pytest.raises(UserError, match=f'lacks {name}'):
        check_data(config(coco), ('train',))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ann_file='train'), 'lacks train '),
        (dict(data_prefix=dict(img='train.json')), r'lacks train\.json '),
        (dict(metainfo=dict(classes='/no/classes.txt')), "'/no/classes.txt' is no text file"),
    ],
    ids=['annotations', 'images', 'classes'],
)
def test_files_of_the_wrong_kind(coco, options, message) -> None:
    with pytest.raises(UserError, match=message):
        check_data(config(coco, **options), ('train',))


@pytest.mark.parametrize('option', ['ann_file', 'proposal_file'])
@pytest.mark.parametrize('ending', ['pkl', 'pickle', 'yaml', 'yml'])
def test_annotations_that_could_run_code(coco, option, ending, monkeypatch) -> None:
    (coco / 'train.json').rename(coco / f'train.{ending}')
    cfg = config(coco, **{'ann_file': 'no.json', option: f'train.{ending}'})
    with pytest.raises(UserError, match=rf"^{option} 'train\.{ending}' can run code .* to JSON"):
        check_data(cfg, ('train',))
    monkeypatch.setenv('MMBIFORMER_UNPICKLE', '1')
    if option == 'ann_file':
        check_data(cfg, ('train',))


def test_unknown_class(coco) -> None:
    wrong = config(coco, metainfo=dict(classes=('cat', 'dgo')))
    with pytest.raises(UserError, match=r'classes dgo .* do not occur .* has cat, dog, owl'):
        check_data(wrong, ('train',))


def test_classes_in_another_order(coco) -> None:
    wrong = config(coco, metainfo=dict(classes=('dog', 'cat')))
    with pytest.raises(UserError, match=r'another order .* to cat, dog'):
        check_data(wrong, ('train',))


def test_default_classes_are_those_of_the_dataset(coco) -> None:
    with pytest.raises(UserError, match=r'classes person, bicycle, .* do not occur'):
        check_data(config(coco, metainfo=dict()), ('train',))


@pytest.mark.parametrize(
    'text',
    ['', '<html>', annotations('cat')[:20], '{"categories": 3}', '{"categories": [{"id": 1}]}'],
    ids=['empty', 'html', 'truncated', 'no list', 'no names'],
)
def test_broken_annotations_name_the_file(tmp_path, text) -> None:
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r'broken\.json.* is not a COCO annotation file'):
        read_category_names(str(path))


def test_categories_before_long_annotations(tmp_path) -> None:
    path = tmp_path / 'a.json'
    padding = [{'id': i, 'bbox': [0, 0, 1, 1]} for i in range(100_000)]
    path.write_text(json.dumps({'categories': [{'name': 'cat'}], 'annotations': padding}))
    assert read_category_names(str(path)) == ['cat']


def test_classes_from_a_file(coco) -> None:
    (coco / 'classes.txt').write_text('cat\nowl')
    check_data(config(coco, metainfo=dict(classes=str(coco / 'classes.txt'))), ('train',))


@pytest.mark.parametrize('root', ['data/a', 'data/a/'])
def test_only_paths_below_the_root_move(root) -> None:
    dataset = dict(type='CocoDataset', data_root=root)
    evaluators = [dict(ann_file='data/a/x.json'), dict(ann_file='data/ab/x.json')]
    cfg = Config(dict(val_dataloader=dict(dataset=dataset), val_evaluator=evaluators))
    set_data_root(cfg, 'new')
    assert [evaluator.ann_file for evaluator in cfg.val_evaluator] == [
        'new/x.json',
        'data/ab/x.json',
    ]


@pytest.mark.parametrize('indent', [None, 2])
def test_category_names_in_the_order_of_the_file(tmp_path, indent) -> None:
    path = tmp_path / 'a.json'
    content = {'categories': [{'id': 7, 'name': 'dög'}, {'name': 'cat', 'id': 2}], 'images': []}
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding='utf-8')
    assert read_category_names(str(path)) == ['dög', 'cat']
