"""The registered metric: pycocotools' values under mmdet's keys, and the sizes beside them."""

import copy
import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coco_samples import random_coco, with_masks
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from pycocotools import mask as mask_utils
from pycocotools_oracle import run_pycocotools

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection import size_metric
from mmbiformer.evaluation.sizes import COCO_RANGES

CLASSES = ('kind 0', 'kind 1', 'kind 2')
STATS = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100'),
)


def make_samples(content, results):
    """Data samples as a detector gives them to metrics, one per image."""
    labels = {x['id']: i for i, x in enumerate(content['categories'])}
    samples = []
    for image in content['images']:
        found = [x for x in results if x['image_id'] == image['id']]
        x, y, w, h = np.array([r['bbox'] for r in found]).reshape(-1, 4).T
        instances = dict(
            bboxes=torch.tensor(np.stack([x, y, x + w, y + h], 1)),
            scores=torch.tensor([r['score'] for r in found], dtype=torch.float64),
            labels=torch.tensor([labels[r['category_id']] for r in found], dtype=torch.int64),
        )
        if found and 'segmentation' in found[0]:
            masks = [mask_utils.decode(r['segmentation']) for r in found]
            instances['masks'] = torch.tensor(np.stack(masks), dtype=torch.bool)
        shape = image['height'], image['width']
        samples.append(dict(img_id=image['id'], ori_shape=shape, pred_instances=instances))
    return samples


def judge(metric, samples, size=None):
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, copy.deepcopy(samples))
    return metric.evaluate(size or len(samples))


def build(path, **arguments):
    return METRICS.build(dict(type='mmbiformer.SizeCocoMetric', ann_file=str(path), **arguments))


@pytest.fixture
def sample(tmp_path):
    content, results = random_coco(np.random.default_rng(0), 12)
    for record in (*content['annotations'], *results):
        # Whole pixels: areas on a bound stay there when sizes are made corners and corners sizes.
        record['bbox'] = [float(round(x)) for x in record['bbox']]
    path = tmp_path / 'gt.json'
    path.write_text(json.dumps(content))
    return path, content, results


def test_values_of_pycocotools_under_the_keys_of_mmdet(sample):
    path, content, results = sample
    samples = make_samples(content, results)
    metrics = judge(build(path), samples)
    stats = run_pycocotools(content, results, COCO_RANGES).stats
    for name, value in zip(STATS, stats, strict=True):
        assert metrics[f'coco/bbox_{name}'] == pytest.approx(value, abs=1e-12)
    theirs = judge(CocoMetric(ann_file=str(path)), samples)
    assert theirs.keys() <= metrics.keys()
    for key in ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75'):
        assert round(metrics[key], 3) == theirs[key]


def test_boxes_and_masks(sample):
    path, content, results = sample
    content, masked = with_masks(content, results)
    path.write_text(json.dumps(content))
    both = [{**x, 'bbox': y['bbox']} for x, y in zip(masked, results, strict=True)]
    metrics = judge(build(path, metric=['bbox', 'segm']), make_samples(content, both))
    for kind, records in (('bbox', results), ('segm', masked)):
        stats = run_pycocotools(content, records, COCO_RANGES, kind).stats
        own = [metrics[f'coco/{kind}_{name}'] for name in STATS]
        np.testing.assert_allclose(own, stats, rtol=0, atol=1e-12)
    theirs = judge(CocoMetric(ann_file=str(path), metric='segm'), make_samples(content, both))
    for name in ('mAP', 'mAP_50', 'mAP_s', 'mAP_m', 'mAP_l'):
        assert round(metrics[f'coco/segm_{name}'], 3) == theirs[f'coco/segm_{name}']


def test_sizes_classes_and_counts(sample):
    path, content, results = sample
    size_bins = dict(measure='side', ranges=dict(low=(0, 50), high=(50, 1000), none=(2000, 3000)))
    metrics = judge(
        build(path, size_bins=size_bins, classwise=True), make_samples(content, results)
    )
    metrics = {key.removeprefix('coco/bbox_'): value for key, value in metrics.items()}
    assert metrics['num_objects_none'] == 0
    assert np.isnan(metrics['mAP_none'])
    real = sum(not x['iscrowd'] for x in content['annotations'])
    assert metrics['num_objects_low'] + metrics['num_objects_high'] == real
    assert metrics['num_objects_all'] == real
    for name in ('', '_low', '_high'):
        of_classes = [metrics[f'{x}_precision{name}'] for x in CLASSES]
        assert np.nanmean(of_classes) == pytest.approx(metrics[f'mAP{name}'])


def test_the_log_shows_sizes_without_objects_as_such(sample, monkeypatch):
    path, content, results = sample
    said = []
    logger = SimpleNamespace(info=said.append, log=lambda *args, **kwargs: None)
    monkeypatch.setattr(size_metric.MMLogger, 'get_current_instance', lambda: logger)
    metrics = judge(build(path), make_samples(content, results))
    assert any('crowd regions are no objects' in text for text in said)
    rows = [line.split('|')[1:-1] for line in '\n'.join(said).splitlines() if '|' in line]
    rows = {cells[0].strip(): [x.strip() for x in cells[1:]] for cells in rows}
    assert rows['512+'] == ['0', *['n/a'] * 4]
    assert rows['all'][1] == f'{100 * metrics["coco/bbox_mAP"]:.1f}'
    assert rows['64-128'][0] == str(metrics['coco/bbox_num_objects_64-128'])


def test_ground_truth_from_data_samples(sample):
    """Without ann_file, as mmdet's metric."""
    _, content, results = sample
    for record in content['annotations']:
        record['area'] = record['bbox'][2] * record['bbox'][3]  # all that data samples know
    samples = make_samples(content, results)
    labels = {x['id']: i for i, x in enumerate(content['categories'])}
    for one in samples:
        one['instances'] = [
            dict(
                bbox_label=labels[x['category_id']],
                bbox=[*x['bbox'][:2], x['bbox'][0] + x['bbox'][2], x['bbox'][1] + x['bbox'][3]],
                ignore_flag=x['iscrowd'],
            )
            for x in content['annotations']
            if x['image_id'] == one['img_id']
        ]
    metric = METRICS.build(dict(type='mmbiformer.SizeCocoMetric'))
    metrics = judge(metric, samples)
    stats = run_pycocotools(content, results, COCO_RANGES).stats
    own = [metrics[f'coco/bbox_{name}'] for name in STATS]
    np.testing.assert_allclose(own, stats, rtol=0, atol=1e-6)


def test_no_detections_is_an_ap_of_zero(sample):
    path, content, _ = sample
    content, _ = with_masks(content, [])
    path.write_text(json.dumps(content))
    samples = make_samples(content, [])
    for one in samples:
        one['pred_instances']['masks'] = torch.zeros(0, 200, 200, dtype=torch.bool)
    metrics = judge(build(path, metric=['bbox', 'segm']), samples)
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP_s'] == 0
    assert np.isnan(metrics['coco/bbox_mAP_512+'])


def test_data_samples_without_objects_have_no_ap(sample):
    _, content, results = sample
    samples = make_samples(content, results)
    for one in samples:
        one['instances'] = []
    metrics = judge(METRICS.build(dict(type='mmbiformer.SizeCocoMetric')), samples)
    assert np.isnan(metrics['coco/bbox_mAP']) and metrics['coco/bbox_num_objects_all'] == 0


def test_wrong_annotations_are_known_at_once(sample):
    path, content, _ = sample
    del content['annotations'][5]['area']
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"record 5 of '.*gt\.json' .* has area None"):
        build(path)


def test_annotations_are_read_once(sample, monkeypatch):
    path, content, results = sample
    metric, samples = build(path), make_samples(content, results)
    first = judge(metric, samples)
    monkeypatch.setattr(size_metric, 'ground_truth_of', None)
    np.testing.assert_equal(judge(metric, samples), first)


def test_masks_of_a_detector_without(sample):
    path, content, results = sample
    content, _ = with_masks(content, [])
    path.write_text(json.dumps(content))
    metric = build(path, metric=['bbox', 'segm'])
    with pytest.raises(UserError, match="'segm' needs masks, and the detector predicts none"):
        judge(metric, make_samples(content, results))


def test_results_are_kept_where_asked(sample, tmp_path):
    path, content, results = sample
    metric = build(path, format_only=True, outfile_prefix=str(tmp_path / 'out'))
    assert judge(metric, make_samples(content, results)) == {}
    assert len(json.loads((tmp_path / 'out.bbox.json').read_text())) == len(results)


def test_results_without_annotations_are_formatted(sample, tmp_path):
    """As of a test set, whose annotations nobody has."""
    path, content, results = sample
    samples = make_samples(content, results)
    del content['annotations']
    path.write_text(json.dumps(content))
    metric = build(path, format_only=True, outfile_prefix=str(tmp_path / 'out'))
    assert judge(metric, samples) == {}
    assert len(json.loads((tmp_path / 'out.bbox.json').read_text())) == len(results)
    with pytest.raises(UserError, match='has no list of annotations'):
        build(path)


@pytest.mark.parametrize('with_ann_file', [True, False])
def test_masks_are_sized_by_their_area(sample, with_ann_file):
    """mmdet gives objects of data samples the area of their box."""
    path, content, results = sample
    content, masked = with_masks(content, results)
    labels = {x['id']: i for i, x in enumerate(content['categories'])}
    for record in content['annotations']:
        record['iscrowd'] = 0
    both = [{**x, 'bbox': y['bbox']} for x, y in zip(masked, results, strict=True)]
    samples = make_samples(content, both)
    for one in samples:
        one['instances'] = [
            dict(
                bbox_label=labels[x['category_id']],
                bbox=[*x['bbox'][:2], x['bbox'][0] + x['bbox'][2], x['bbox'][1] + x['bbox'][3]],
                mask=x['segmentation'],
                ignore_flag=0,
            )
            for x in content['annotations']
            if x['image_id'] == one['img_id']
        ]
    path.write_text(json.dumps(content))
    where = dict(ann_file=str(path)) if with_ann_file else {}
    metric = METRICS.build(dict(type='mmbiformer.SizeCocoMetric', metric='segm', **where))
    metrics = judge(metric, samples)
    stats = run_pycocotools(content, masked, COCO_RANGES, 'segm').stats
    own = [metrics[f'coco/segm_{name}'] for name in STATS]
    np.testing.assert_allclose(own, stats, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(proposal_nums=(1, 10)), 'follows COCO and takes no proposal_nums'),
        (dict(iou_thrs=[0.5]), 'takes no iou_thrs'),
        (dict(metric_items=['mAP']), 'takes no metric_items'),
        (dict(metric='proposal'), 'judges bbox and segm, not proposal: use CocoMetric'),
        (dict(size_bins=dict(measure='width')), "measure 'width' is unknown"),
        (
            dict(size_bins=dict(ranges=dict(s=(0, 16)))),
            "size range 's' would give mAP_s",
        ),
        (dict(size_bins=dict(ranges={'50': (0, 16)})), "size range '50' would give mAP_50"),
        (dict(metric='segm'), r"annotation \d+ of '.*gt.json' has no segmentation"),
    ],
)
def test_wrong_arguments(sample, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(sample[0], **arguments)


@pytest.fixture
def unused_port():
    with socket.socket() as own:
        own.bind(('127.0.0.1', 0))
        return own.getsockname()[1]


def _judge_part(rank, port, path, samples, queue):
    import torch.distributed as dist

    dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    metrics = judge(build(path), samples[rank::2], len(samples))
    queue.put((rank, metrics))
    dist.barrier()
    dist.destroy_process_group()


def test_distributed_evaluation(sample, unused_port):
    path, content, results = sample
    samples = make_samples(content, results)
    context = torch.multiprocessing.get_context('spawn')
    queue = context.SimpleQueue()
    torch.multiprocessing.spawn(
        _judge_part, args=(unused_port, path, samples, queue), nprocs=2, join=True
    )
    found = dict(queue.get() for _ in range(2))
    alone = judge(build(path), samples)
    for rank in range(2):
        assert found[rank].keys() == alone.keys()
        np.testing.assert_allclose(list(found[rank].values()), list(alone.values()), atol=1e-12)
