"""Checks of the data folder before a run starts."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from data_mutations import coco_config, write_coco
from mmengine.config import Config

from mmbiformer.engine.data import check_data, set_data_root
from mmbiformer.engine.data_checks import coco_files
from mmbiformer.errors import UserError

NAN, INFINITE = float('nan'), float('inf')


@pytest.fixture
def coco(tmp_path) -> Path:
    """A small folder that passes."""
    write_coco(tmp_path)
    return tmp_path


def change(root: Path, edit: Callable[[dict], object]) -> None:
    path = root / 'train.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def refusal(cfg: Config) -> str:
    with pytest.raises(UserError) as raised:
        check_data(cfg, ('train', 'val'))
    return str(raised.value)


def test_complete_folder_passes(coco) -> None:
    assert check_data(coco_config(coco), ('train', 'val')) == []


def test_missing_root(coco) -> None:
    with pytest.raises(UserError, match=r"data root '.*/no' not found: .*train/.*--data-root"):
        check_data(coco_config(coco / 'no'), ('train',))


@pytest.mark.parametrize('lacking', ['train', 'train.json'])
def test_lacking_parts(coco, lacking) -> None:
    (coco / lacking).rename(coco / 'other')
    name = 'train.json' if lacking == 'train.json' else 'train/'
    assert f'lacks {name}' in refusal(coco_config(coco))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ann_file='train'), 'lacks train '),
        (dict(data_prefix=dict(img='train.json')), 'lacks train.json '),
        (dict(metainfo=dict(classes='/no/classes.txt')), "'/no/classes.txt' is no text file"),
        (dict(metainfo=dict(classes='cat')), "metainfo.classes=('cat',), with a comma"),
    ],
    ids=['annotations', 'images', 'classes', 'one class'],
)
def test_files_of_the_wrong_kind(coco, options, message) -> None:
    assert message in refusal(coco_config(coco, **options))


@pytest.mark.parametrize('option', ['ann_file', 'proposal_file'])
@pytest.mark.parametrize('ending', ['pkl', 'pickle', 'yaml', 'yml'])
def test_annotations_that_could_run_code(coco, option, ending, monkeypatch) -> None:
    (coco / 'train.json').rename(coco / f'train.{ending}')
    cfg = coco_config(coco, **{'ann_file': 'no.json', option: f'train.{ending}'})
    with pytest.raises(UserError, match=rf"^{option} 'train\.{ending}' can run code .* to JSON"):
        check_data(cfg, ('train',))
    monkeypatch.setenv('MMBIFORMER_UNPICKLE', '1')
    if option == 'ann_file':
        check_data(cfg, ('train',))


def test_unknown_class(coco) -> None:
    cfg = coco_config(coco, metainfo=dict(classes=('cat', 'dgo', 'owl')))
    assert "that it lacks: dgo (did you mean 'dog'?); it has cat, dog, owl: set" in refusal(cfg)


def test_classes_in_another_order(coco) -> None:
    cfg = coco_config(coco, metainfo=dict(classes=('dog', 'cat', 'owl')))
    line = refusal(cfg)
    assert 'another order' in line and "label 0 is 'cat' and not 'dog'" in line
    assert 'to cat, dog, owl' in line


def test_default_classes_are_those_of_the_dataset(coco) -> None:
    cfg = coco_config(coco, metainfo=dict())
    cfg.model.bbox_head.num_classes = 80
    assert (line := refusal(cfg)).count('that it lacks: person, bicycle, car')
    assert 'and 75 more' in line


def test_categories_that_the_config_leaves_out_are_said(coco) -> None:
    cfg = coco_config(coco, metainfo=dict(classes=('cat', 'owl')))
    cfg.model.bbox_head.num_classes = 2
    (notice,) = check_data(cfg, ('train',))
    assert 'leaves out: dog (3 annotations)' in notice


def test_classes_from_a_file(coco) -> None:
    (coco / 'classes.txt').write_text('cat\ndog\nowl')
    cfg = coco_config(coco, metainfo=dict(classes=str(coco / 'classes.txt')))
    assert check_data(cfg, ('train',)) == []


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


HEADS = {
    'one stage': dict(bbox_head=dict(num_classes=80)),
    'two stages': dict(roi_head=dict(bbox_head=dict(num_classes=80))),
    'masks': dict(roi_head=dict(mask_head=dict(num_classes=80))),
    'cascade': dict(roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=80)])),
    'default': dict(roi_head=dict(bbox_head=dict(type='Shared2FCBBoxHead'))),
    'transformer': dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=0)),
}


@pytest.mark.parametrize('model', HEADS.values(), ids=HEADS)
def test_heads_of_another_number_of_classes(coco, model) -> None:
    cfg = coco_config(coco)
    cfg.model = dict(rpn_head=dict(num_classes=1), **model)
    line = refusal(cfg)
    assert 'heads that have not the 3 classes of the dataset, cat, dog, owl' in line
    assert '=80; set them, as --cfg-options model.' in line and '_classes=3' in line


def test_splits_have_the_same_classes(coco) -> None:
    cfg = coco_config(coco)
    content = json.loads((coco / 'train.json').read_text())
    content['categories'][0]['name'] = 'cow'
    (coco / 'val.json').write_text(json.dumps(content))
    classes = dict(metainfo=dict(classes=('cow', 'dog', 'owl')))
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, **classes))
    cfg.val_dataloader.dataset.ann_file = 'val.json'
    assert "in their order: label 0 is 'cat' and 'cow'" in refusal(cfg)


def test_metrics_judge_by_the_file_of_their_data_set(coco) -> None:
    cfg = coco_config(coco)
    cfg.val_dataloader = cfg.train_dataloader
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(coco / 'train.json'))
    assert check_data(cfg, ('train', 'val')) == []
    cfg.val_evaluator.ann_file = str(coco / 'no.json')
    assert "no.json': missing: val_evaluator.ann_file; set val_evaluator" in refusal(cfg)
    (coco / 'no.json').write_bytes((coco / 'train.json').read_bytes())
    (notice,) = check_data(cfg, ('train', 'val'))
    assert 'not the annotation file of the val dataset' in notice


BROKEN = {
    'empty': (b'', 'it is empty'),
    'html': (b'<html>', 'it is a web page'),
    'truncated': (b'{"images": [', 'it may be truncated'),
    'no text': (b'\xff\xfe\x00', "can't decode"),
    'no list': (b'{"images": 3}', 'it has no list of images'),
    'no records': (b'{"images": [3]}', 'record 0 of images is 3'),
    'deep': (b'[' * 100_000, 'nested too deeply'),
}


@pytest.mark.parametrize(('text', 'reason'), BROKEN.values(), ids=BROKEN)
def test_broken_annotations_name_the_file(coco, text, reason) -> None:
    (coco / 'train.json').write_bytes(text)
    line = refusal(coco_config(coco))
    assert "train.json' is not a COCO annotation file (" in line and reason in line


def box(*values: object) -> Callable[[dict], object]:
    return lambda content: content['annotations'][1].update(bbox=list(values))


def annotation(**values: object) -> Callable[[dict], object]:
    return lambda content: content['annotations'][1].update(values)


def image(**values: object) -> Callable[[dict], object]:
    return lambda content: content['images'][1].update(values)


def lacking(part: str, key: str) -> Callable[[dict], object]:
    return lambda content: content[part][1].pop(key)


WRONG = {
    'NaN': (box(1, 2, NAN, 4), 'annotation 2 (bbox [1, 2, nan, 4])'),
    'infinite': (box(1, INFINITE, 3, 4), 'annotation 2 (bbox [1, inf, 3, 4])'),
    'text': (box(1, 2, '3', 4), "(bbox [1, 2, '3', 4])"),
    'three numbers': (box(1, 2, 3), 'not four finite numbers'),
    'huge': (box(1, 2, 3, 10**400), 'not four finite numbers'),
    'negative': (box(9, 2, -3, 4), 'negative width or height: annotation 2 (bbox'),
    'outside': (box(70, 2, 3, 4), 'outside of their image: annotation 2'),
    'no box': (lacking('annotations', 'bbox'), 'annotation 2 (bbox None)'),
    'no area': (lacking('annotations', 'area'), 'annotation 2 (area None)'),
    'area': (annotation(area=-1), 'annotation 2 (area -1)'),
    'flag': (annotation(iscrowd='no'), "annotation 2 (iscrowd 'no')"),
    'category': (annotation(category_id=99), 'annotation 2 (category_id 99)'),
    'image': (annotation(image_id=99), 'annotation 2 (image_id 99)'),
    'list for an id': (annotation(category_id=[5]), 'annotation 2 (category_id [5])'),
    'repeated id': (annotation(id=1), 'ids of annotations that occur twice: 1;'),
    'repeated image': (image(id=10), 'ids of images that occur twice: 10;'),
    'no id': (lacking('annotations', 'id'), 'record 1 of annotations (id None)'),
    'mask': (annotation(segmentation=[['a'] * 6]), 'annotation 2 (a polygon with something'),
    'far mask': (annotation(segmentation=[[0, 0, 9, 0, 9, 1e8]]), 'annotation 2 (a polygon with'),
    'mask of another size': (
        annotation(segmentation=dict(size=[9, 9], counts='0')),
        'annotation 2 (a mask of height and width [9, 9]',
    ),
    'runs': (annotation(segmentation=dict(size=[48, 64], counts='0')), 'not of all its pixels'),
    'no mask': (lacking('annotations', 'segmentation'), 'annotation 2; draw them'),
    'height': (image(height='48'), "image 11 (height '48', width 64)"),
    'no width': (lacking('images', 'width'), 'image 11 (height 48, width None)'),
    'no file name': (image(file_name=None), 'image 11 (None); name their files'),
    'leaving': (image(file_name='../../../x.jpg'), "leave the data root: image 11 ('../../../x"),
    'absolute': (image(file_name='/etc/passwd'), "leave the data root: image 11 ('/etc/passwd')"),
    'missing': (image(file_name='no.jpg'), "that are not in '"),
    'no images': (lambda x: x.update(images=[], annotations=[]), 'empty lists: images'),
    'no objects': (lambda x: x.update(annotations=[]), 'empty lists: annotations'),
    'a name twice': (lambda x: x['categories'][1].update(name='cat'), 'of the same name: cat;'),
    'no name': (lambda x: x['categories'][1].pop('name'), 'record 1 (name None)'),
}


@pytest.mark.parametrize(('edit', 'said'), WRONG.values(), ids=WRONG)
def test_wrong_records_are_refused_by_name(coco, edit, said) -> None:
    change(coco, edit)
    line = refusal(coco_config(coco))
    assert said in line and 'train.json' in line
    assert '\n' not in line and len(line) < 500


NOTICED = {
    'empty': (box(1, 2, 0, 4), 'less than a pixel wide or high: annotation 2'),
    'beyond': (box(60, 2, 9, 12), 'reach beyond their image: annotation 2'),
    'no area': (annotation(area=0), 'area 0: annotation 2'),
    'large area': (annotation(area=999), 'larger than the box: annotation 2'),
    'ignored': (annotation(ignore=1), 'flag ignore: annotation 2'),
    'short polygon': (annotation(segmentation=[[1, 2, 3, 4]]), 'less than three points, or'),
    'same file': (image(file_name='0.jpg'), "same file as another: image 11 ('0.jpg')"),
    'no object': (
        lambda x: x.update(annotations=[y for y in x['annotations'] if y['image_id'] != 11]),
        "without an object of the config's classes: 1.png; training leaves them out",
    ),
}


@pytest.mark.parametrize(('edit', 'said'), NOTICED.values(), ids=NOTICED)
def test_what_coco_has_itself_is_said(coco, edit, said) -> None:
    change(coco, edit)
    (notice,) = check_data(coco_config(coco), ('train',))
    assert said in notice


@pytest.mark.parametrize(
    ('corners', 'said'), [(True, 'are these corners'), (False, 'relative to the image?')]
)
def test_boxes_in_another_format(tmp_path, corners, said) -> None:
    write_coco(tmp_path, num_images=12)

    def edit(content: dict) -> None:
        for record in content['annotations']:
            x, y, w, h = record['bbox']
            far = [x + 20, y, x + 20 + w, y + h]
            record.update(bbox=far if corners else [x / 64, y / 48, w / 64, h / 48])

    change(tmp_path, edit)
    assert said in refusal(coco_config(tmp_path))


def test_masks_are_needed_only_where_they_are_loaded(coco) -> None:
    change(coco, lacking('annotations', 'segmentation'))
    assert check_data(coco_config(coco, pipeline=[]), ('train',)) == []


def test_no_image_is_left_to_train_on(coco) -> None:
    cfg = coco_config(coco, filter_cfg=dict(filter_empty_gt=True, min_size=64))
    assert 'filter_cfg of the dataset leaves out all 3' in refusal(cfg)
    assert check_data(coco_config(coco, test_mode=True), ('train',)) == []


def test_an_unreadable_image_of_the_sample(coco) -> None:
    (coco / 'train/0.jpg').write_bytes(b'')
    cfg = coco_config(coco)
    assert "train/0.jpg' is empty; restore" in refusal(cfg)
    cfg.max_skipped = 1
    (notice,) = check_data(cfg, ('train',))
    assert "train/0.jpg' is empty" in notice
    (coco / 'train/2.jpg').write_bytes(b'')
    assert 'cannot be used' in refusal(cfg)


def test_an_image_of_another_size_than_its_record(coco) -> None:
    change(coco, image(height=64, width=48))
    line = refusal(coco_config(coco, pipeline=[]))
    assert "train/1.png' is 64x48 (width x height), and its record 48x64: is it turned?" in line


def test_many_are_counted(coco) -> None:
    change(coco, lambda x: [y.update(bbox=[NAN] * 4) for y in x['annotations']])
    assert 'annotation 1 (bbox' in (line := refusal(coco_config(coco)))
    assert 'and 6 more; mend' in line


def test_all_kinds_are_counted(coco) -> None:
    change(coco, lambda x: (box(1, 2, -3, 4)(x), image(file_name='no.jpg')(x)))
    assert '1 more kinds of errors: tools/check_data.py' in refusal(coco_config(coco))


def test_polygons_of_large_files_are_not_read(coco, monkeypatch) -> None:
    text = (coco / 'train.json').read_text()
    monkeypatch.setattr(coco_files, 'LARGE', 100)
    for spaced in (text, text.replace(' ', ''), json.dumps(json.loads(text), indent=2)):
        (coco / 'train.json').write_text(spaced)
        content = coco_files.read_coco(str(coco / 'train.json'))
        masks = [x['segmentation'] for x in content['annotations']]
        assert masks.count(coco_files.NOT_READ) == 6 and len(masks) == 9
        whole = coco_files.read_coco(str(coco / 'train.json'), whole=True)
        assert whole == json.loads(text)
        for read, record in zip(content['annotations'], whole['annotations'], strict=True):
            assert {**read, 'segmentation': 0} == {**record, 'segmentation': 0}
        assert check_data(coco_config(coco), ('train',)) == []


def test_one_process_of_a_machine_is_enough(coco, monkeypatch) -> None:
    os.unlink(coco / 'train.json')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert check_data(coco_config(coco), ('train',)) == []
