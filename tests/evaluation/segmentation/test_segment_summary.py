"""What is said of one segmenter: the summary as data and as a table."""

import json

import pytest
from test_segment_sizes import RANGES, count, one, parse

from mmbiformer.evaluation.segmentation.segment_report import summarise
from mmbiformer.evaluation.segmentation.segment_sizes import (
    SegmentCounts,
    score_intervals,
    segment_ranges,
)
from mmbiformer.evaluation.segmentation.segment_tables import format_summary

NAMES = ('wall', 'door', 'lamp', 'sky')


def summary_by_hand():
    labels = parse('1122', '11.2', '00.2')
    prediction = parse('1122', '13.0', '00.0')
    counts = SegmentCounts.stack([count(prediction, labels), count(labels, labels)])
    return summarise(counts, RANGES, NAMES, score_intervals(counts, 20, 0), ['first'])


def test_summary():
    summary = summary_by_hand()
    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    totals = summary['totals']
    assert totals['images'] == 2 and totals['ignored_pixels'] == 4
    # wall 4 of 6, door 7 of 8, lamp 6 of 8; sky is predicted alone.
    assert totals['mIoU'] == pytest.approx((4 / 6 + 7 / 8 + 6 / 8 + 0) / 4)
    assert totals['aAcc'] == pytest.approx(17 / 20)
    assert totals['mAcc'] == pytest.approx((1 + 7 / 8 + 6 / 8) / 3)
    assert list(totals['intervals']) == ['mIoU']
    rows = summary['sizes']
    assert [row['name'] for row in rows] == ['all', '1-4', '4-9', '100+']
    small = rows[1]
    assert (small['low'], small['high'], small['relative']) == (1, 4, False)
    assert (small['segments'], small['pixels'], small['classes'], small['images']) == (2, 4, 1, 2)
    assert rows[2]['class_recall'] == pytest.approx((7 / 8 + 6 / 8) / 2)
    assert rows[2]['segments_found'] == 1 and len(rows[2]['intervals']['class_recall']) == 2
    assert rows[3]['pixel_recall'] is None and rows[3]['high'] is None
    assert rows[3]['intervals']['pixel_recall'] == [None, None]
    lamp, sky = summary['classes'][2:]
    assert lamp['name'] == 'lamp' and lamp['IoU'] == pytest.approx(6 / 8)
    assert lamp['Acc'] == pytest.approx(6 / 8) and lamp['predicted_pixels'] == 6
    assert lamp['sizes'][2] == dict(segments=2, pixels=8, pixel_recall=6 / 8, segments_found=1.0)
    assert sky['IoU'] == 0 and sky['Acc'] is None and sky['sizes'][0]['pixel_recall'] is None


def test_summary_says_what_is_left_out():
    assert summary_by_hand()['notices'] == [
        'first',
        '4 pixels (16.7%) are ignored by the ground truth, and count nowhere',
        '1 predicted classes are not in the ground truth; their IoU of 0 enters mIoU',
    ]
    small = segment_ranges('area', {'4-5': (4, 5)})
    counts = one(count(parse('.1111', '.0000'), parse('11111', '00002'), small))
    assert summarise(counts, small, NAMES)['notices'] == [
        '2 pixels are predicted as no class, and are wrong',
        '2 segments are in no size range',
    ]
    labels = parse('11')
    assert not summarise(one(count(labels, labels)), RANGES, NAMES)['notices']


def test_table():
    lines = format_summary(summary_by_hand()).splitlines()
    cells = {line.split('|')[1].strip(): line.split('|')[2:-1] for line in lines if '|' in line}
    assert [x.strip() for x in cells['size']] == [
        *('segments', 'images', 'pixels', 'pixel recall', 'class recall', 'segments found')
    ]
    assert [x.strip() for x in cells['100+']] == ['0', '0', '0', 'n/a', 'n/a', 'n/a']
    assert [x.strip().split()[0] for x in cells['4-9']] == [
        '4',
        '2',
        '16',
        '81.25',
        '81.25',
        '100.00',
    ]
    assert cells['1-4'][3].strip() == '100.00 [n/a]'
    assert any(line.startswith('mIoU 57.29 [') for line in lines)
    assert lines[-1].startswith('1 predicted classes')


def test_table_without_intervals():
    labels = parse('1111')
    table = format_summary(summarise(one(count(labels, labels)), RANGES, NAMES))
    assert '[' not in table and table.splitlines()[-1] == 'mIoU 100.00'
