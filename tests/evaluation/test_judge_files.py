"""From files to the report: what is judged, names, options, and errors that name files."""

import json
from argparse import ArgumentParser

import numpy as np
import pytest
from coco_samples import random_coco, with_masks

from mmbiformer.errors import UserError
from mmbiformer.evaluation.judge_files import (
    add_size_options,
    judge_files,
    name_results,
    read_size_options,
)
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


def test_boxes_are_judged_where_there_are_any(files):
    assert judge(files, 'boxes', 'both')['iou_type'] == 'bbox'
    assert judge(files, 'both')['iou_type'] == 'bbox'
    assert judge(files, 'masks')['iou_type'] == 'segm'
    masks = judge(files, 'masks', 'both', iou_type='segm')
    assert masks['iou_type'] == 'segm'
    assert masks['differences'][0]['sizes'][0]['AP'] == 0


def test_what_a_file_lacks_is_named(files):
    with pytest.raises(
        UserError, match=r"masks.json' has records without bbox: judge it by --iou"
    ):
        judge(files, 'masks', iou_type='bbox')
    with pytest.raises(UserError, match=r"boxes.json' has records without segmentation"):
        judge(files, 'boxes', iou_type='segm')
    content = json.loads(files['gt'].read_text())
    del content['annotations'][3]['segmentation']
    files['gt'].write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"gt.json' has records without segmentation"):
        judge(files, 'masks')


def test_a_ground_truth_without_objects_judges_nothing(files):
    content = json.loads(files['gt'].read_text())
    files['gt'].write_text(json.dumps({**content, 'annotations': []}))
    with pytest.raises(UserError, match=r"gt.json' has no objects"):
        judge(files, 'boxes')


def test_masks_that_cannot_be_decoded(files):
    results = json.loads(files['masks'].read_text())
    results[0]['segmentation']['counts'] = 'no mask'
    files['masks'].write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"masks.json' has a mask that cannot be decoded"):
        judge(files, 'masks')


def test_names_of_files():
    assert list(name_results(['a/swin.bbox.json', 'b/biformer.json'])) == ['swin', 'biformer']
    assert list(name_results(['a/best.segm.json', 'b/best.segm.json'])) == ['a/best', 'b/best']
    assert list(name_results(['a/v1.2', 'b/'])) == ['v1.2', 'b']
    with pytest.raises(UserError, match=r'given twice: a/x\.json a/x\.json'):
        name_results(['a/x.json', 'a/x.json'])


def read(*words):
    parser = ArgumentParser()
    add_size_options(parser, 'out')
    return read_size_options(parser.parse_args(words))


def test_options():
    ranges, bootstrap = read()
    assert ranges == size_ranges()
    assert (bootstrap.num_resamples, bootstrap.seed) == (1000, 0)
    ranges, bootstrap = read(
        *('--measure', 'relative_side', '--bootstrap', '0'),
        *('--ranges', 'few=0-0.1', 'rest=0.1-'),
    )
    assert ranges == size_ranges('relative_side', dict(few=(0, 0.1), rest=(0.1, float('inf'))))
    assert bootstrap is None
    assert read('--bootstrap', '100', '--seed', '3')[1].seed == 3


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--ranges', 'tiny'), "--ranges 'tiny': write NAME=LOW-HIGH"),
        (('--ranges', 'tiny=4'), 'write NAME=LOW-HIGH'),
        (('--ranges', 'a=0-8', 'a=8-16'), "--ranges names 'a' twice"),
        (('--ranges', 'tiny=a-b'), 'write NAME=LOW-HIGH'),
        (('--ranges', '=1-2'), 'write NAME=LOW-HIGH'),
        (('--ranges', 'tiny=9-3'), "size range 'tiny' is .9.0, 3.0.: give"),
        (('--ranges', 'small=0-3'), "size range 'small' has the name of one of COCO's own"),
        (('--bootstrap', '-1'), '--bootstrap -1: give 100 or more'),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(UserError, match=message):
        read(*words)
