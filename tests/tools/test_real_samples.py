"""The shipped configs train and evaluate on real COCO and ADE20K images, and on the shapes.

The images are not part of the repository: set MMBIFORMER_SAMPLES to a folder that holds
``coco_tiny/`` (COCO's layout) and ``ade20k_sample/`` (ADEChallengeData2016's layout).
"""

import math
import re

import pytest
from toolbox import IN_PROCESS, SAMPLES, metrics_of, run_tool
from zoo import CONFIGS

from mmbiformer.datasets.shapes import CLASSES, make_shapes

DETECTION = [
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    'train_dataloader.dataset.indices=4',
    'train_dataloader.dataset.pipeline.2.scale=(192,128)',
    'val_dataloader.dataset.pipeline.1.scale=(192,128)',
    'test_dataloader.dataset.pipeline.1.scale=(192,128)',
]
SEGMENTATION = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'train_dataloader.dataset.pipeline.2.scale=(256,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    'model.data_preprocessor.size=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(256,64)',
    'test_dataloader.dataset.pipeline.1.scale=(256,64)',
    *(f'tta_pipeline.1.transforms.0.{i}.scale=({64 * (i + 2)},{16 * (i + 2)})' for i in range(6)),
]
SMALL = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2',
    'val_dataloader.dataset.pipeline.1.scale=(128,128)',
    'test_dataloader.dataset.pipeline.1.scale=(128,128)',
    'model.test_cfg.score_thr=0',
]
YOLOX = [
    *SMALL,
    'model.data_preprocessor.batch_augments=None',
    'train_dataloader.dataset.dataset.indices=4',
    'train_dataloader.dataset.pipeline.0.img_scale=(128,128)',
    'train_dataloader.dataset.pipeline.1.border=(-64,-64)',
    'train_dataloader.dataset.pipeline.2.img_scale=(128,128)',
    'train_dataloader.dataset.pipeline.5.scale=(128,128)',
]
RTMDET = [
    *SMALL,
    'model.backbone.init_cfg=None',
    'model.test_cfg.min_bbox_size=-1',  # untrained, it gives boxes without an extent
    'train_dataloader.dataset.indices=4',
    'train_dataloader.dataset.pipeline.2.img_scale=(128,128)',
    'train_dataloader.dataset.pipeline.3.scale=(256,256)',
    'train_dataloader.dataset.pipeline.4.crop_size=(128,128)',
    'train_dataloader.dataset.pipeline.7.size=(128,128)',
    'train_dataloader.dataset.pipeline.8.img_scale=(128,128)',
    'val_dataloader.dataset.pipeline.2.size=(128,128)',
    'test_dataloader.dataset.pipeline.2.size=(128,128)',
]


def on_shapes(train_dataset: str) -> list[str]:
    """What points a COCO config at the embedded shapes."""
    options = ['model.bbox_head.num_classes=6']
    splits = dict(training=[train_dataset], validation=['val_dataloader', 'test_dataloader'])
    for split, places in splits.items():
        for place in places:
            dataset = f'{place}.dataset'
            options += [
                f'{dataset}.ann_file=annotations/instances_{split}.json',
                f'{dataset}.data_prefix.img=images/{split}/',
                f'{dataset}.metainfo.classes=({",".join(CLASSES)})',
            ]
    evaluators = 'val_evaluator', 'test_evaluator'
    path = 'data/coco/annotations/instances_validation.json'
    return options + [f'{evaluator}.ann_file={path}' for evaluator in evaluators]


BBOX_METRICS = ['coco/bbox_mAP', 'coco/bbox_mAP_s']


@pytest.mark.parametrize(
    ('config', 'sample', 'options', 'metrics'),
    [
        (
            'retinanet_biformer-t_fpn_1x_coco',
            'coco_tiny',
            [*DETECTION, 'model.test_cfg.score_thr=0'],
            BBOX_METRICS,
        ),
        (
            'mask-rcnn_biformer-t_fpn_1x_coco',
            'coco_tiny',
            [*DETECTION, 'model.test_cfg.rcnn.score_thr=0'],
            ['coco/bbox_mAP', 'coco/segm_mAP'],
        ),
        ('fpn_biformer-t_8xb4-80k_ade20k-512x512', 'ade20k_sample', SEGMENTATION, ['mIoU']),
        ('upernet_biformer-t_8xb2-160k_ade20k-512x512', 'ade20k_sample', SEGMENTATION, ['mIoU']),
        ('yolox-s_bra-p3_8xb8-300e_coco', 'coco_tiny', YOLOX, BBOX_METRICS),
        ('rtmdet-s_bra-p3-p4-p5_8xb32-300e_coco', 'coco_tiny', RTMDET, BBOX_METRICS),
        (
            'yolox-s_bra-p3-p4-p5_8xb8-300e_coco',
            'shapes',
            [*YOLOX, *on_shapes('train_dataloader.dataset')],
            BBOX_METRICS,
        ),
        (
            'rtmdet-s_bra-p3_8xb32-300e_coco',
            'shapes',
            [*RTMDET, *on_shapes('train_dataloader')],
            BBOX_METRICS,
        ),
    ],
    ids=[
        *('RetinaNet', 'Mask R-CNN', 'Semantic FPN', 'UperNet', 'YOLOX', 'RTMDet'),
        *('YOLOX on shapes', 'RTMDet on shapes'),
    ],
)
def test_shipped_config_trains_and_evaluates(tmp_path, config, sample, options, metrics) -> None:
    data_root = SAMPLES / sample
    if sample == 'shapes':
        data_root = make_shapes(tmp_path / 'shapes', num_train=4, num_val=2)
    elif not data_root.is_dir():
        pytest.skip(f'{SAMPLES / sample} is not there: set MMBIFORMER_SAMPLES')
    common = [
        *('--data-root', data_root, '--work-dir', tmp_path / 'run'),
        *('--cfg-options', *options, *IN_PROCESS),
    ]
    run_tool('train', CONFIGS[config], *common)
    checkpoint = (tmp_path / 'run/last_checkpoint').read_text()
    (log,) = tmp_path.glob('run/*/*.log')
    losses = re.findall(r' loss: (\S+)', log.read_text())
    assert len(losses) == 2 and all(math.isfinite(float(loss)) for loss in losses)
    tta = ['--tta'] if sample == 'ade20k_sample' else []
    run_tool('test', CONFIGS[config], checkpoint, *tta, *common)
    found = metrics_of(tmp_path / 'run')
    for metric in metrics:
        assert 0 <= found[metric] <= 100
