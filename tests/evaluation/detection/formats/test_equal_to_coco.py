"""Reports on each format equal those on the same data in COCO's form."""

import json

import numpy as np
import pytest
from other_formats import (
    COCO91,
    as_box_lists,
    as_predictions_json,
    coco_content,
    coco_results,
    random_sample,
    write_images,
    write_json,
    write_labels,
)

from mmbiformer.evaluation.judge_files import judge_files
from mmbiformer.evaluation.report.report_json import report_json
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges

NESTED = ['a/1.jpg', 'b/1.jpg', 'b/c/2.v1.png', '3.jpg', 'b/4.jpg', 'b/5.jpg', '6.jpg']


def judge(annotations, results, **options):
    options = dict(bootstrap=Bootstrap(100, 0)) | options
    return report_json(judge_files(annotations, dict(model=results), size_ranges(), **options))


def flatten(value, key=''):
    """key -> every number of a report, except where these say what is drawn."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for own, x in items:
        if isinstance(x, dict | list) and own != 'worst_images':
            yield from flatten(x, f'{key}.{own}')
        elif isinstance(x, int | float):
            yield f'{key}.{own}', x


def assert_same(report, expected):
    report, expected = dict(flatten(report)), dict(flatten(expected))
    assert list(report) == list(expected)
    assert sum('interval' in x for x in expected) > 5
    assert 0 < expected['.models.0.coco.AP'] < 1
    finite = [x for x in expected if np.isfinite(expected[x])]
    assert max(abs(report[x] - expected[x]) for x in finite) < 1e-12


@pytest.fixture(params=range(3))
def seed(request):
    return request.param


@pytest.fixture
def coco(tmp_path):
    """Writes a sample in COCO's form, and gives the content and paths of both files."""

    def write(sample, ids=None):
        content, results = coco_content(sample, ids), coco_results(sample, ids)
        write_json(tmp_path / 'gt.json', content)
        write_json(tmp_path / 'coco.json', results)
        return content, results, tmp_path / 'gt.json', tmp_path / 'coco.json'

    return write


@pytest.mark.parametrize('polygons', [False, True])
@pytest.mark.parametrize('names', [None, NESTED])
def test_label_folders(tmp_path, coco, seed, polygons, names):
    sample = random_sample(seed, names, polygons=polygons)
    _, _, ann, results = coco(sample)
    expected = judge(ann, results)
    assert expected['iou_type'] == ('segm' if polygons else 'bbox')
    images = write_images(tmp_path / 'images', sample)
    truth = write_labels(tmp_path / 'labels', sample.objects)
    flat = {x.replace('/', '_'): rows for x, rows in sample.found.items()}
    found = write_labels(tmp_path / 'run/labels', flat)
    assert_same(judge(truth, found, image_dir=images), expected)
    assert_same(judge(ann, found), expected)
    assert_same(
        judge(truth, write_labels(tmp_path / 'f', sample.found), image_dir=images), expected
    )
    by_box = judge(truth, found, image_dir=images, iou_type='bbox')
    assert_same(by_box, judge(ann, results, iou_type='bbox'))


@pytest.mark.parametrize('polygons', [False, True])
def test_labels_with_six_digits(tmp_path, coco, seed, polygons):
    """As Ultralytics writes them; COCO's form is made of what the text says."""
    sample = random_sample(seed, polygons=polygons)
    for rows in (sample.objects, sample.found):
        for lines in rows.values():
            lines[:] = [[row[0], *(float(f'{x:g}') for x in row[1:])] for row in lines]
    _, _, ann, results = coco(sample)
    images = write_images(tmp_path / 'images', sample)
    truth = write_labels(tmp_path / 'labels', sample.objects, 'g')
    found = write_labels(tmp_path / 'run', sample.found, 'g')
    assert_same(judge(truth, found, image_dir=images), judge(ann, results))


@pytest.mark.parametrize('polygons', [False, True])
@pytest.mark.parametrize('has_file_names', [False, True])
def test_predictions_json(tmp_path, coco, seed, polygons, has_file_names):
    sample = random_sample(seed, polygons=polygons)
    content, results, ann, path = coco(sample)
    expected = judge(ann, path)
    found = as_predictions_json(results, content, has_file_names)
    found = write_json(tmp_path / 'predictions.json', found)
    images = write_images(tmp_path / 'images', sample)
    truth = write_labels(tmp_path / 'labels', sample.objects)
    if not has_file_names:  # with the oldest releases, 1 and 2 may be counted from 0
        assert {x['category_id'] for x in json.loads(found.read_text())} == {1, 2, 3}
    assert_same(judge(ann, found), expected)
    assert_same(judge(truth, found, image_dir=images), expected)


@pytest.mark.parametrize('ids', [range(1, 81), COCO91])
def test_predictions_json_of_80_classes(tmp_path, coco, seed, ids):
    """Numbered as for COCO itself, or as for any data set of 80 classes."""
    sample = random_sample(seed, num_classes=80)
    content, results, ann, path = coco(sample, COCO91)
    expected = judge(ann, path)
    as_written = [dict(x, category_id=ids[COCO91.index(x['category_id'])]) for x in results]
    as_written += [dict(as_written[0], category_id=ids[11], score=0.0)]  # 12 is none of COCO's
    results.append(dict(results[0], category_id=COCO91[11], score=0.0))
    write_json(path, results)
    expected = judge(ann, path)
    found = as_predictions_json(as_written, content)
    found = write_json(tmp_path / 'predictions.json', found)
    images = write_images(tmp_path / 'images', sample)
    truth = write_labels(tmp_path / 'labels', sample.objects)
    names = [f'kind {i}' for i in range(80)]
    assert_same(judge(ann, found), expected)
    report = judge(truth, found, image_dir=images, class_names=names)
    assert_same(report, expected)
    assert report['ground_truth']['categories'] == expected['ground_truth']['categories']


@pytest.mark.parametrize('polygons', [False, True])
@pytest.mark.parametrize('first', [0, 1])
def test_box_lists(tmp_path, coco, seed, polygons, first):
    sample = random_sample(seed, polygons=polygons)
    content, results, ann, path = coco(sample)
    lists = as_box_lists(results, content)
    # What x2 - x1 is in floats is the width, in COCO's form too.
    for record, box in zip(results, (box for x in lists for box in x['boxes']), strict=True):
        record['bbox'] = [*box[:2], box[2] - box[0], box[3] - box[1]]
    expected = judge(ann, write_json(path, results))
    for entry in lists:
        entry['labels'] = [x - 1 + first for x in entry['labels']]
    ids = [x['id'] for x in content['images']]
    files = [x['file_name'] for x in content['images']]
    order = np.random.default_rng(seed).permutation(len(lists)).tolist()
    written = dict(
        in_order=lists,
        by_id=[dict(lists[i], image_id=ids[i]) for i in order],
        by_file=[dict(lists[i], file_name=files[i]) for i in order],
        keyed={str(ids[i]): lists[i] for i in order},
    )
    images = write_images(tmp_path / 'images', sample)
    truth = write_labels(tmp_path / 'labels', sample.objects)
    for name, data in written.items():
        found = write_json(tmp_path / f'{name}.json', data)
        assert_same(judge(ann, found), expected)
        if name == 'by_file':
            assert_same(judge(truth, found, image_dir=images), expected)
