"""The shipped configs train and evaluate on real COCO and ADE20K images.

The images are not part of the repository: set MMBIFORMER_SAMPLES to a folder that holds
``coco_tiny/`` (COCO's layout) and ``ade20k_sample/`` (ADEChallengeData2016's layout).
"""

import math
import re

import pytest
from toolbox import CONFIGS, IN_PROCESS, SAMPLES, metrics_of, run_tool

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


@pytest.mark.parametrize(
    ('config', 'sample', 'options', 'metrics'),
    [
        (
            'retinanet_biformer-t_fpn_1x_coco',
            'coco_tiny',
            [*DETECTION, 'model.test_cfg.score_thr=0'],
            ['coco/bbox_mAP', 'coco/bbox_mAP_s'],
        ),
        (
            'mask-rcnn_biformer-t_fpn_1x_coco',
            'coco_tiny',
            [*DETECTION, 'model.test_cfg.rcnn.score_thr=0'],
            ['coco/bbox_mAP', 'coco/segm_mAP'],
        ),
        ('fpn_biformer-t_8xb4-80k_ade20k-512x512', 'ade20k_sample', SEGMENTATION, ['mIoU']),
        ('upernet_biformer-t_8xb2-160k_ade20k-512x512', 'ade20k_sample', SEGMENTATION, ['mIoU']),
    ],
    ids=['RetinaNet', 'Mask R-CNN', 'Semantic FPN', 'UperNet'],
)
def test_shipped_config_trains_and_evaluates(tmp_path, config, sample, options, metrics) -> None:
    if not (SAMPLES / sample).is_dir():
        pytest.skip(f'{SAMPLES / sample} is not there: set MMBIFORMER_SAMPLES')
    common = [
        *('--data-root', SAMPLES / sample, '--work-dir', tmp_path),
        *('--cfg-options', *options, *IN_PROCESS),
    ]
    run_tool('train', CONFIGS / f'{config}.py', *common)
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    (log,) = tmp_path.glob('*/*.log')
    losses = re.findall(r' loss: (\S+)', log.read_text())
    assert len(losses) == 2 and all(math.isfinite(float(loss)) for loss in losses)
    tta = ['--tta'] if sample == 'ade20k_sample' else []
    run_tool('test', CONFIGS / f'{config}.py', checkpoint, *tta, *common)
    found = metrics_of(tmp_path)
    for metric in metrics:
        assert 0 <= found[metric] <= 100
