"""What is said of one segmenter: the summary as data and as a table."""

import pytest
from segment_maps import RANGES, count, one, parse

from mmbiformer.evaluation.report_data import Score, SizeRow
from mmbiformer.evaluation.resampling import Bootstrap
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
    return summarise(counts, RANGES, NAMES, score_intervals(counts, Bootstrap(20)), ['first'])


def test_summary():
    summary = summary_by_hand()
    assert summary.counts['images'] == 2 and summary.counts['ignored_pixels'] == 4
    overall = {name: score.value for name, score in summary.overall.items()}
    # wall 4 of 6, door 7 of 8, lamp 6 of 8; sky is predicted alone.
    assert overall['mIoU'] == pytest.approx((4 / 6 + 7 / 8 + 6 / 8 + 0) / 4)
    assert overall['aAcc'] == pytest.approx(17 / 20)
    assert overall['mAcc'] == pytest.approx((1 + 7 / 8 + 6 / 8) / 3)
    assert list(overall) == ['mIoU', 'mAcc', 'aAcc']
    rows = summary.sizes
    assert [row.size.name for row in rows] == ['all', '1-4', '4-9', '100+']
    assert rows[1].size == RANGES[1]
    assert rows[1].counts == dict(images=2, classes=1, segments=2, pixels=4)
    assert rows[2].scores['class_recall'].value == pytest.approx((7 / 8 + 6 / 8) / 2)
    assert rows[2].scores['segments_found'].value == 1
    assert len(rows[2].scores['class_recall'].interval) == 2
    assert rows[3].scores['pixel_recall'] == Score(None, (None, None))
    lamp, sky = summary.classes[2:]
    assert lamp.name == 'lamp' and lamp.counts['predicted_pixels'] == 6
    assert [lamp.scores[x].value for x in ('IoU', 'Acc')] == pytest.approx([6 / 8, 6 / 8])
    assert lamp.sizes[2] == SizeRow(
        size=RANGES[2],
        scores=dict(pixel_recall=Score(6 / 8), segments_found=Score(1.0)),
        counts=dict(segments=2, pixels=8),
    )
    assert sky.scores == dict(IoU=Score(0.0), Acc=Score(None))
    assert sky.sizes[0].scores['pixel_recall'] == Score(None)


def test_summary_says_what_is_left_out():
    assert summary_by_hand().notices == [
        'first',
        '4 pixels (16.7%) are ignored by the ground truth, and count nowhere',
        '1 predicted classes are not in the ground truth; their IoU of 0 enters mIoU',
    ]
    small = segment_ranges('area', {'4-5': (4, 5)})
    counts = one(count(parse('.1111', '.0000'), parse('11111', '00002'), small))
    assert summarise(counts, small, NAMES).notices == [
        '2 pixels are predicted as no class, and are wrong',
        '2 segments are in no size range',
    ]
    labels = parse('11')
    assert not summarise(one(count(labels, labels)), RANGES, NAMES).notices


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
