"""From files to the report: what is judged, and errors that name files."""

import json

import numpy as np
import pytest
from coco_samples import random_coco, with_masks

from mmbiformer.errors import UserError
from mmbiformer.evaluation.judge_files import judge_files
from mmbiformer.evaluation.report.report_files import write_report
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges


@pytest.fixture
def files(tmp_path):
    content, results = random_coco(np.random.default_rng(0), 8)
    content, masked = with_masks(content, results)
    both = [{**x, **y} for x, y in zip(results, masked, strict=True)]
    found = {}
    for name, data in dict(gt=content, boxes=results, masks=masked, both=both).items():
        found[name] = tmp_path / f'{name}.json'
        found[name].write_text(json.dumps(data))
    return found


def judge(files, *names, **options):
    results = {name: files[name] for name in names}
    return judge_files(files['gt'], results, size_ranges(), **options)


def test_masks_are_judged_where_all_have_some(files):
    assert judge(files, 'boxes', 'both').iou_type == 'bbox'
    assert judge(files, 'both', iou_type='bbox').iou_type == 'bbox'
    assert judge(files, 'masks').iou_type == 'segm'
    masks = judge(files, 'masks', 'both')
    assert masks.iou_type == 'segm'
    assert masks.differences[0].sizes[0].scores['AP'].value == 0
    remove_mask(files['gt'])
    assert judge(files, 'both').iou_type == 'bbox'


def remove_mask(path):
    """That of the fourth annotation."""
    content = json.loads(path.read_text())
    del content['annotations'][3]['segmentation']
    path.write_text(json.dumps(content))
    return content['annotations'][3]['id']


def test_what_a_file_lacks_is_named(files):
    with pytest.raises(UserError, match=r"record 0 of '.*masks.json' has no bbox: judge by iou"):
        judge(files, 'masks', iou_type='bbox')
    with pytest.raises(UserError, match=r"record 0 of '.*boxes.json' has no segmentation"):
        judge(files, 'both', 'boxes', iou_type='segm')
    number = remove_mask(files['gt'])
    message = rf"annotation {number} of '.*gt.json' has no segmentation: judge by iou type bbox"
    with pytest.raises(UserError, match=message):
        judge(files, 'masks', iou_type='segm')


def test_chosen_categories_alone(files):
    whole = judge(files, 'boxes')
    chosen = whole.ground_truth.categories[1:]
    results = json.loads(files['boxes'].read_text())
    names = {x['id']: x['name'] for x in json.loads(files['gt'].read_text())['categories']}
    kept = [x for x in results if names[x['category_id']] in chosen]
    files['boxes'].write_text(json.dumps(kept))
    part = judge(files, 'boxes', category_names=chosen)
    assert part.ground_truth.categories == chosen
    assert part.models[0].classes == whole.models[0].classes[1:]
    notices = part.ground_truth.notices
    assert any('annotations of other categories are left out' in x for x in notices)
    with pytest.raises(UserError, match=r"gt.json' has no categories nothing, else"):
        judge(files, 'boxes', category_names=['nothing', 'else'])


def test_objects_of_no_range_are_counted(files):
    ranges = size_ranges('area', dict(some=(20, 400)))
    content = json.loads(files['gt'].read_text())
    areas = [x['area'] for x in content['annotations'] if not x.get('iscrowd')]
    outside = sum(not 20 <= x < 400 for x in areas)
    assert 0 < outside < len(areas)
    report = judge_files(files['gt'], dict(boxes=files['boxes']), ranges)
    assert f'{outside} objects are in none of the size ranges' in report.ground_truth.notices


def test_a_ground_truth_without_objects_judges_nothing(files):
    content = json.loads(files['gt'].read_text())
    files['gt'].write_text(json.dumps({**content, 'annotations': []}))
    with pytest.raises(UserError, match=r"gt.json' has no objects"):
        judge(files, 'boxes')


def test_nothing_found_is_an_ap_of_zero_where_it_may_be(files, tmp_path):
    files['none'] = tmp_path / 'none.json'
    files['none'].write_text('[]')
    with pytest.raises(UserError, match=r"none.json' has no detections"):
        judge(files, 'boxes', 'none')
    for iou_type, first in (('bbox', 'boxes'), ('segm', 'masks')):
        report = judge(
            files, first, 'none', iou_type=iou_type, may_be_empty=True, bootstrap=Bootstrap(100)
        )
        model = report.models[1]
        assert model.counts['num_detections'] == model.best_f1 == 0
        assert model.overall['AP'].value == 0
        num_objects = model.sizes[0].counts['num_objects']
        assert model.sizes[0].errors['missed'].count == num_objects > 0
        assert any('images have no detections' in x for x in model.notices)
        assert write_report(report, tmp_path / iou_type)['html'].is_file()


def test_masks_that_cannot_be_decoded(files):
    results = json.loads(files['masks'].read_text())
    results[0]['segmentation']['counts'] = 'no mask'
    files['masks'].write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"record 0 of '.*masks.json' .* not runs of its"):
        judge(files, 'masks')
