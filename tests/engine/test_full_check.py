"""The full check of a config's data, and mutated data sets."""

import json

import cv2
import numpy as np
import pytest
from data_mutations import (
    coco_config,
    pairs_config,
    torture_coco,
    torture_images,
    write_coco,
    write_pairs,
)
from mmengine.config import Config

from mmbiformer.engine.data import check_data
from mmbiformer.engine.data_checks.files import File, open_all
from mmbiformer.engine.full_check import check_all, report_lines
from mmbiformer.errors import UserError


@pytest.fixture
def pairs(tmp_path) -> Config:
    write_pairs(tmp_path)
    return pairs_config(tmp_path)


def write_map(root, values: np.ndarray) -> None:
    cv2.imwrite(str(root / 'maps/1.png'), values)


def labels(value: int) -> np.ndarray:
    return np.full((48, 64), value, np.uint8)


WRONG = {
    'label': (labels(200), 'has the label 200 at 3,072 pixels, and its 3 classes end at 3 (0 is'),
    'size': (labels(1)[:24], 'is 64x24 (width x height), and its image 64x48'),
    'colours': (np.zeros((48, 64, 3), np.uint8), 'is of mode RGB, and a label map has one'),
    'deep': (labels(1).astype(np.uint16), 'has 16 bits per pixel'),
}


@pytest.mark.parametrize(('values', 'said'), WRONG.values(), ids=WRONG)
def test_label_maps(pairs, tmp_path, values, said) -> None:
    assert check_data(pairs, ('train',)) == []
    write_map(tmp_path, values)
    with pytest.raises(UserError) as raised:
        check_data(pairs, ('train',))
    assert f"maps/1.png' {said}" in str(raised.value)


@pytest.mark.parametrize(
    ('reduced', 'value', 'fine'),
    [(True, 3, True), (True, 4, False), (False, 3, False), (False, 2, True), (False, 255, True)],
)
def test_range_of_labels(pairs, tmp_path, reduced, value, fine) -> None:
    pairs.train_dataloader.dataset.reduce_zero_label = reduced
    for name in '01':
        cv2.imwrite(str(tmp_path / f'maps/{name}.png'), labels(value))
    report = check_all(pairs, workers=1)
    assert report['ok'] == fine, report


def test_classes_that_the_config_leaves_out_have_labels_too(pairs, tmp_path) -> None:
    """mmseg takes the values of its own classes, and gives those of the config."""
    pairs.train_dataloader.dataset.update(type='PascalVOCDataset', metainfo=dict(classes=['cat']))
    pairs.train_dataloader.dataset.update(ann_file='list.txt', reduce_zero_label=False)
    (tmp_path / 'list.txt').write_text('0\n1')
    pairs.model.decode_head.num_classes = 1
    for name in '01':
        cv2.imwrite(str(tmp_path / f'maps/{name}.png'), labels(20))
    assert check_all(pairs, workers=1)['ok']
    write_map(tmp_path, labels(21))
    assert not check_all(pairs, workers=1)['ok']


@pytest.mark.parametrize('folder', ['images', 'maps'])
def test_missing_parts_of_pairs(pairs, tmp_path, folder) -> None:
    pairs.train_dataloader.dataset.ann_file = 'list.txt'
    (tmp_path / 'list.txt').write_text('0\n1')
    (path,) = (tmp_path / folder).glob('1.*')
    path.unlink()
    what = dict(images='images', maps='label maps')[folder]
    with pytest.raises(UserError, match=rf'missing {what}: .*{path.name}; restore'):
        check_data(pairs, ('train',))


def test_folder_without_images_of_the_ending(pairs) -> None:
    pairs.train_dataloader.dataset.img_suffix = '.tif'
    with pytest.raises(UserError, match=r'no images that end in: \.tif; there|set img_suffix'):
        check_data(pairs, ('train',))


def test_segmentation_head_of_another_number_of_classes(pairs) -> None:
    pairs.model.auxiliary_head = [dict(num_classes=3), dict(num_classes=19)]
    with pytest.raises(UserError, match=r'model\.auxiliary_head\.1\.num_classes=19; set them'):
        check_data(pairs, ('train',))


def test_evaluation_needs_names_of_classes(pairs) -> None:
    pairs.train_dataloader.dataset.update(metainfo=None, test_mode=True)
    with pytest.raises(UserError, match=r'names of classes; set metainfo\.classes'):
        check_data(pairs, ('train',))


def test_dataset_that_cannot_be_built(pairs) -> None:
    pairs.train_dataloader.dataset.update(type='ADE20KDataset', metainfo=dict(classes=['wal']))
    pairs.model.decode_head.num_classes = 1
    with pytest.raises(UserError, match='dataset ADE20KDataset cannot be built: new classes'):
        check_data(pairs, ('train',))


def test_all_files_are_opened_and_all_errors_listed(tmp_path) -> None:
    write_coco(tmp_path, num_images=40)
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, test_mode=True))
    assert check_data(cfg, ('train',)) == []
    for number in (1, 5):  # not among those that the quick check opens
        path = tmp_path / f'train/{number}.png'
        path.write_bytes(path.read_bytes()[:-9])
    content = json.loads((tmp_path / 'train.json').read_text())
    content['annotations'].append(dict(content['annotations'][0], id=999))
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert check_data(cfg, ('train',)) == []
    report = check_all(cfg, workers=2)
    train, val = report['datasets']
    assert not report['ok'] and json.dumps(report)
    (error,) = train['errors']
    assert error['count'] == 2 and "1.png' is cut off" in error['examples'][0]
    assert train['counts']['images'] == train['opened'] == 40
    assert train['counts']['by_class'] == dict(cat=41, dog=40, owl=40)
    (repeated,) = train['notices']
    assert 'the same image, category and bbox as another: annotation 999' in repeated['line']
    assert 'images that training sees as well' in ' '.join(x['line'] for x in val['notices'])
    lines = '\n'.join(report_lines(report))
    assert '40 images, 121 annotations' in lines and 'error: ' in lines


def test_a_data_set_that_cannot_be_read_is_an_error_among_others(tmp_path) -> None:
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, ann_file='no.json'))
    train, val = check_all(cfg, workers=1)['datasets']
    assert not train['errors'] and 'lacks no.json' in val['errors'][0]['line']


def test_official_counts_stand_beside(tmp_path) -> None:
    content = write_coco(tmp_path)
    categories = [dict(id=i + 100, name=f'kind {i}') for i in range(77)]
    (tmp_path / 'instances_val2017.json').write_text(
        json.dumps({**content, 'categories': content['categories'] + categories})
    )
    cfg = coco_config(tmp_path, ann_file='instances_val2017.json')
    (line, *_) = report_lines(check_all(cfg, workers=1))
    assert '3 images (officially 5,000), 9 annotations (officially 36,781)' in line


def test_mutated_annotation_files() -> None:
    outcomes = torture_coco(60, seed=1)
    assert outcomes['refused'] > 20 and outcomes['passed'] > 2


def test_mutated_images_and_label_maps() -> None:
    outcomes = torture_images(60, seed=1)
    assert outcomes['refused'] > 20 and outcomes['passed'] > 5


def test_files_are_opened_beside_threads_of_opencv(tmp_path) -> None:
    """Which forks of this process would wait for."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)
    paths = [str(tmp_path / f'{number}.png') for number in range(70)]
    for path in paths[:-1]:
        cv2.imwrite(path, labels(1))
    files = [File(path, (48, 64)) for path in paths]
    found = list(open_all(files, 2))
    cv2.setNumThreads(threads)
    assert found[:-1] == [[]] * 69
    assert found[-1] == [('images', paths[-1], 'is missing')]
