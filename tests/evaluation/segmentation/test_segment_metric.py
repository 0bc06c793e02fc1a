"""The metric: mmseg's own numbers, and those by size; built from a config; on several ranks."""

import math
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from PIL import Image

from mmbiformer.errors import UserError
from mmbiformer.evaluation.segmentation.segment_metric import SegmentSizeMetric
from mmbiformer.evaluation.segmentation.segment_sizes import (
    BY_SIZE,
    SegmentCounts,
    count_segments,
    find_segments,
    scores,
    segment_ranges,
)

CLASSES = ('wall', 'door', 'lamp', 'sky')
ALL_METRICS = ['mIoU', 'mDice', 'mFscore']


def sample(prediction, labels, name='a.jpg'):
    return dict(
        pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
        gt_sem_seg=dict(data=torch.as_tensor(labels, dtype=torch.uint8)[None]),
        img_path=f'images/{name}',
        reduce_zero_label=True,
    )


def random_samples(num_images=5, ignore_index=255):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(num_images):
        labels = rng.integers(0, 3, (4, 6 + i)).repeat(4, 0).repeat(4, 1)
        prediction = np.where(rng.random(labels.shape) < 0.3, rng.integers(0, 3), labels)
        labels[rng.random(labels.shape) < 0.1] = ignore_index
        samples.append(sample(prediction, labels, f'{i}.jpg'))
    return samples


def build(metric=SegmentSizeMetric, **options):
    built = metric(**options)
    built.dataset_meta = dict(classes=CLASSES)
    return built


def evaluate(metric, samples):
    for i in range(0, len(samples), 2):
        metric.process({}, samples[i : i + 2])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('options', [{}, dict(nan_to_num=0), dict(ignore_index=0)], ids=str)
def test_keys_and_values_of_mmseg(options):
    samples = random_samples(ignore_index=options.get('ignore_index', 255))
    expected = evaluate(build(IoUMetric, iou_metrics=ALL_METRICS, **options), samples)
    found = evaluate(build(iou_metrics=ALL_METRICS, **options), samples)
    assert {'mIoU', 'mAcc', 'aAcc', 'mDice', 'mFscore', 'mPrecision', 'mRecall'} == set(expected)
    for name, value in expected.items():
        # mmseg's are rounded to two digits.
        assert found[name] == pytest.approx(value, abs=0.0051), name
        assert type(found[name]) is float
    assert any(found[name] != round(found[name], 2) for name in expected)


def test_values_by_size():
    samples = random_samples()
    ranges = segment_ranges('area', {'0-20': (0, 20), '20+': (20, math.inf), 'no': (0, 1)})
    bins = dict(measure='area', ranges={x.name: (x.low, x.high) for x in ranges[1:]})
    found = evaluate(build(size_bins=bins), samples)
    counts = []
    for x in samples:
        prediction, labels = (x[key]['data'][0].numpy() for key in ('pred_sem_seg', 'gt_sem_seg'))
        counts.append(count_segments(prediction, find_segments(labels, 4), ranges))
    expected = scores(SegmentCounts.stack(counts).total())
    for name in BY_SIZE:
        for size, value in zip(ranges, expected[name], strict=True):
            assert found[f'{name}_{size.name}'] == pytest.approx(100 * value, nan_ok=True)
        assert math.isnan(found[f'{name}_no'])
    assert found['pixel_recall_all'] == pytest.approx(found['aAcc'], abs=1e-12)
    assert found['class_recall_all'] == pytest.approx(found['mAcc'], abs=1e-12)
    assert len(found) == 3 + 3 * 4


def test_default_sizes_are_octaves():
    found = evaluate(build(), random_samples(1))
    assert {f'pixel_recall_{x.name}' for x in segment_ranges('side')} < set(found)


def test_ranks_add_up():
    samples = random_samples()
    whole, first, second = build(), build(), build()
    expected = evaluate(whole, samples)
    # As collect_results does: pickled parts, taken in turn.
    first.process({}, samples[::2])
    second.process({}, samples[1::2])
    whole.results = [None] * len(samples)
    for start, rank in enumerate((first, second)):
        whole.results[start::2] = pickle.loads(pickle.dumps(rank.results))
    found = whole.evaluate(len(samples))
    assert found == pytest.approx(expected, nan_ok=True, abs=0)


def test_builds_from_a_config_of_mmseg():
    config = dict(
        type='mmbiformer.SegmentSizeMetric',
        iou_metrics=['mIoU'],
        size_bins=dict(measure='relative_side'),
        prefix='val',
    )
    evaluator = Evaluator(config)
    evaluator.dataset_meta = dict(classes=CLASSES)
    samples = random_samples(2)
    evaluator.process(samples, {})
    found = evaluator.evaluate(2)
    assert 0 < found['val/mIoU'] < 100 and 'val/pixel_recall_8-16%' in found


def test_logs_the_tables(capsys):
    MMLogger.get_instance('segment-size-metric', log_level='INFO')
    evaluate(build(), random_samples())
    log = ''.join(capsys.readouterr())
    assert '| Class |' in log.replace('  ', ' ') and 'lamp' in log
    assert 'results by size of ground-truth segments' in log and '| 16-32' in log
    assert 'are ignored by the ground truth' in log


def test_a_map_of_one_column():
    found = evaluate(build(), [sample([[0], [1], [1]], [[0], [1], [0]])])
    assert found['aAcc'] == pytest.approx(200 / 3)


def test_predictions_are_written_as_by_mmseg(tmp_path):
    samples = random_samples(1)
    metric = build(output_dir=str(tmp_path), format_only=True)
    assert not evaluate(metric, samples)
    written = np.array(Image.open(tmp_path / '0.png'))
    assert (written == samples[0]['pred_sem_seg']['data'][0].numpy() + 1).all()


@pytest.mark.parametrize(
    ('prediction', 'labels', 'message'),
    [
        ([[0, 0]], [[0, 0, 0]], "^'images/b.jpg': the prediction has 1 x 2 pixels"),
        ([[0, 0]], [[0, 4]], "^'images/b.jpg': ground-truth label 4 is neither"),
    ],
    ids=['size', 'label'],
)
def test_the_image_that_does_not_fit_is_named(prediction, labels, message):
    samples = [sample([[0, 0]], [[0, 0]]), sample(prediction, labels, 'b.jpg')]
    with pytest.raises(UserError, match=message):
        build().process({}, samples)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r'has no argument size_bin$'):
        SegmentSizeMetric(size_bin=dict(measure='side'))
    with pytest.raises(ValueError, match="measure 'width' is unknown"):
        SegmentSizeMetric(size_bins=dict(measure='width'))
