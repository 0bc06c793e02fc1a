"""The files' JSON: keys, their order, and values against the report."""

import json

import pytest
from segment_reports import RANGES, make_report_without_segments, make_segment_report
from size_reports import make_report

from mmbiformer.evaluation.detection.tide import SUMMARIES
from mmbiformer.evaluation.report.report_json import report_json
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_sizes import BY_SIZE
from mmbiformer.evaluation.sizes import size_ranges

BOOTSTRAP = Bootstrap(60, 7)


@pytest.mark.parametrize(
    ('make', 'arguments'),
    [
        (make_report, ()),
        (make_report, (('a', 'b'), (), 'bbox', BOOTSTRAP)),
        (make_report, (('only',), size_ranges('relative_side'), 'segm', BOOTSTRAP)),
        (make_segment_report, ()),
        (make_segment_report, (('a', 'b'), RANGES, BOOTSTRAP)),
        (make_report_without_segments, (BOOTSTRAP,)),
    ],
    ids=['plain', 'intervals', 'masks', 'segments', 'segments with intervals', 'no segments'],
)
def test_it_is_plain_data(make, arguments):
    content = report_json(make(*arguments))
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_report_on_detectors():
    report = make_report(bootstrap=BOOTSTRAP)
    content = report_json(report)
    assert list(content) == [
        *('iou_type', 'ground_truth', 'ranges', 'bootstrap', 'models', 'differences')
    ]
    assert content['ranges'][-1]['high'] is None
    bootstrap = dict(num_resamples=60, seed=7, confidence=0.95, min_images=5)
    assert content['bootstrap'] == bootstrap
    for model, data in zip(content['models'], report.models, strict=True):
        assert model['coco']['APs'] == data.overall['APs'].value
        for row, of_data in zip(model['sizes'], data.sizes, strict=True):
            assert list(row) == [
                *('name', 'num_objects', 'AP', 'AP50', 'AP75', 'AR', 'errors', 'intervals')
            ]
            assert row['AP75'] == of_data.scores['AP75'].value
            assert row['intervals']['AP75'] == list(of_data.scores['AP75'].interval)
            assert [x for x in row['errors'] if 'count' not in row['errors'][x]] == list(SUMMARIES)
        for row, of_data in zip(model['categories'], data.classes, strict=True):
            assert list(row['sizes'][0]) == ['num_objects', 'AP', 'interval']
            assert row['sizes'][0]['interval'] == list(of_data.sizes[0].scores['AP'].interval)
        assert list(model['worst_images'][0][0]) == [
            *('missed', 'false', 'objects', 'detections', 'id', 'file_name', 'height', 'width')
        ]
    row, of_data = content['differences'][0]['sizes'][0], report.differences[0].sizes[0]
    assert row['intervals']['AP'] == list(of_data.scores['AP'].interval)


def test_a_report_on_segmenters():
    report = make_segment_report(bootstrap=BOOTSTRAP)
    content = report_json(report)
    assert list(content) == ['bootstrap', 'models', 'differences']
    assert content['bootstrap'] == dict(num_resamples=60, seed=7, confidence=0.95, min_images=5)
    for model, data in zip(content['models'], report.models, strict=True):
        assert list(model) == ['name', 'path', 'totals', 'sizes', 'classes', 'notices']
        assert list(model['totals']) == [
            *('images', 'ignored_pixels', 'unpredicted_pixels', 'outside_segments'),
            *('mIoU', 'mAcc', 'aAcc', 'intervals'),
        ]
        assert model['totals']['mIoU'] == data.overall['mIoU'].value
        assert model['totals']['intervals'] == dict(mIoU=list(data.overall['mIoU'].interval))
        for row, of_data, size in zip(model['sizes'], data.sizes, RANGES, strict=True):
            assert list(row) == [
                *('name', 'low', 'high', 'relative', 'inclusive'),
                *('images', 'classes', 'segments', 'pixels', *BY_SIZE, 'intervals'),
            ]
            assert (row['name'], row['low']) == (size.name, size.low)
            assert row['intervals']['pixel_recall'] == list(
                of_data.scores['pixel_recall'].interval
            )
        assert model['sizes'][0]['high'] is None
        assert list(model['classes'][0]) == ['name', 'IoU', 'Acc', 'predicted_pixels', 'sizes']
        assert list(model['classes'][0]['sizes'][0]) == [
            *('segments', 'pixels', 'pixel_recall', 'segments_found')
        ]
    for difference in content['differences']:
        assert list(difference) == ['model', 'minus', 'mIoU', 'intervals', 'sizes']
        assert list(difference['intervals']) == ['mIoU']
        assert list(difference['sizes'][0]) == ['name', *BY_SIZE, 'intervals']


def test_without_bootstrap():
    content = report_json(make_report())
    assert content['bootstrap'] is None
    assert 'intervals' not in content['models'][0]['sizes'][0]
    assert 'interval' not in content['models'][0]['categories'][0]['sizes'][0]
    assert 'intervals' not in content['differences'][0]['sizes'][0]
    content = report_json(make_segment_report())
    assert content['bootstrap'] is None
    for model in content['models']:
        assert all(x['intervals'] == {} for x in (model['totals'], *model['sizes']))
    (difference,) = content['differences']
    assert all(x['intervals'] == {} for x in (difference, *difference['sizes']))
