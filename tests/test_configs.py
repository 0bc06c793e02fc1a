"""Every config on disk: it builds, its parts fit together, and it states the published recipe."""

from math import cos, pi
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn
from zoo import (
    ABLATION,
    CLASSIFIERS,
    CLOFORMER,
    CONFIGS,
    MASK_RCNN,
    NAMES,
    RETINANET,
    SEMANTIC_FPN,
    TOKEN_LABELLING,
    UPERNET,
    load,
)

# The recipes of the published runs; drop path of T is this project's choice.
RECIPES = {
    RETINANET: dict(
        images=(8, 2),
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
        decay_norms=True,
        epochs=12,
        partition_factor=16,
        drop_path_rate=dict(t=0.1, s=0.2, b=0.3),
        norm_eval=True,
    ),
    MASK_RCNN: dict(
        images=(8, 2),
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
        decay_norms=False,
        epochs=12,
        partition_factor=16,
        drop_path_rate=dict(t=0.1, s=0.2, b=0.3),
        norm_eval=True,
    ),
    SEMANTIC_FPN: dict(
        images=(8, 4),
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
        decay_norms=True,
        iterations=80000,
        partition_factor=8,
        drop_path_rate=dict(t=0.1, s=0.15, b=0.3),
        norm_eval=False,
    ),
    UPERNET: dict(
        images=(8, 2),
        optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
        decay_norms=False,
        iterations=160000,
        partition_factor=8,
        drop_path_rate=dict(t=0.1, s=0.3, b=0.4),
        norm_eval=False,
    ),
}
EMBED_DIMS = dict(t=[64, 128, 256, 512], s=[64, 128, 256, 512], b=[96, 192, 384, 768])


def in_scope(cfg: Config):
    return DefaultScope.overwrite_default_scope(cfg.default_scope)


def build_model(cfg: Config) -> nn.Module:
    with in_scope(cfg):
        return MODELS.build(cfg.model)


def compose(cfg: Config, pipeline: list) -> Compose:
    with in_scope(cfg):
        return Compose(pipeline)


@pytest.fixture
def sample(tmp_path: Path) -> dict:
    """What a segmentation data set hands to its pipeline: an image of 90 x 130 and its labels."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / 'image.png'), rng.integers(0, 256, (90, 130, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'label.png'), rng.integers(0, 151, (90, 130), np.uint8))
    return dict(
        img_path=str(tmp_path / 'image.png'),
        seg_map_path=str(tmp_path / 'label.png'),
        label_map=None,
        reduce_zero_label=True,
        seg_fields=[],
    )


def test_the_configs_on_disk_are_the_expected_ones():
    quickstart = [name for name in CONFIGS if 'quickstart' in name]
    assert len(quickstart) == 3, quickstart
    benchmark = [name for name, path in CONFIGS.items() if path.parent.name == 'size_benchmark']
    assert len(benchmark) == 3, benchmark
    plugin = [name for name, path in CONFIGS.items() if path.parent.name == 'plugin']
    assert len(plugin) == 7, plugin
    assert len(ABLATION) == 22, ABLATION
    classifiers = [*CLASSIFIERS, TOKEN_LABELLING]
    expected = NAMES + CLOFORMER + classifiers + quickstart + benchmark + plugin + ABLATION
    assert sorted(CONFIGS) == sorted(expected)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_channels_fit(name):
    cfg = load(name)
    model = build_model(cfg).eval()
    images = torch.rand(1, 3, 64, 64)
    with in_scope(cfg), torch.no_grad():
        if cfg.default_scope == 'mmseg':
            logits = model(images, mode='tensor')
            assert logits.shape == (1, model.num_classes, 16, 16)
            if model.with_auxiliary_head:
                logits = model.auxiliary_head(model.extract_feat(images))
                assert logits.shape == (1, model.num_classes, 4, 4)
        elif cfg.default_scope == 'mmpretrain':
            num_classes = cfg.model.data_preprocessor.num_classes
            assert model(images, mode='tensor').shape == (1, num_classes)
        else:
            from mmdet.structures import DetDataSample

            meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
            assert model(images, [DetDataSample(metainfo=meta)], mode='tensor')


@pytest.mark.parametrize('name', CONFIGS)
def test_pipelines_build(name):
    cfg = load(name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        transforms = compose(cfg, loader.dataset.pipeline).transforms
        assert len(transforms) >= 2 + (cfg.default_scope != 'mmpretrain')
    assert cfg.val_evaluator == cfg.test_evaluator


@pytest.mark.parametrize('size', 'tsb')
@pytest.mark.parametrize('family', RECIPES)
def test_recipe(family, size):
    cfg, recipe = load(family.format(size)), RECIPES[family]
    gpus, batch_size = recipe['images']

    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=gpus * batch_size)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.optimizer == recipe['optimizer']
    assert 'clip_grad' not in cfg.optim_wrapper
    if 'epochs' in recipe:
        assert cfg.train_cfg.type == 'EpochBasedTrainLoop'
        assert cfg.train_cfg.max_epochs == recipe['epochs']
        assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    else:
        assert cfg.train_cfg.type == 'IterBasedTrainLoop'
        assert cfg.train_cfg.max_iters == recipe['iterations']
        assert cfg.train_cfg.val_interval == recipe['iterations'] // 10
        assert cfg.default_hooks.checkpoint.interval == recipe['iterations'] // 10
        assert not cfg.default_hooks.checkpoint.by_epoch
        assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3

    backbone = cfg.model.backbone
    assert backbone.type == 'mmbiformer.BiFormer'
    assert backbone.arch == size
    assert backbone.partition_factor == recipe['partition_factor']
    assert backbone.drop_path_rate == recipe['drop_path_rate'][size]
    assert backbone.get('norm_eval', False) == recipe['norm_eval']
    assert 'init_cfg' not in backbone

    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb


@pytest.mark.parametrize('name', CLOFORMER)
def test_cloformer_has_the_recipe_of_biformer(name):
    # Its authors published no detector or segmenter; drop path is that of their classifiers.
    cfg, size = load(name), name.split('-')[1 + name.startswith('mask')].split('_')[0]
    other = load(name.replace(f'cloformer-{size}', 'biformer-s'))
    backbone, biformer = cfg.model.pop('backbone'), other.model.pop('backbone')
    drop_path_rate = dict(xxs=0.0, xs=0.06, s=0.06)[size]
    assert (backbone.type, backbone.arch) == ('mmbiformer.CloFormer', size)
    assert backbone.get('drop_path_rate', 0.0) == drop_path_rate
    for key in ('out_indices', 'norm_eval'):
        assert backbone.get(key) == biformer.get(key)
    del cfg.model.neck['in_channels'], other.model.neck['in_channels']
    assert cfg.to_dict() == other.to_dict()


@pytest.mark.parametrize('family', [RETINANET, MASK_RCNN])
def test_detection_data(family):
    cfg = load(family.format('s'))
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(train) == [
        'LoadImageFromFile', 'LoadAnnotations', 'Resize', 'RandomFlip', 'PackDetInputs'
    ]  # fmt: skip
    assert train['Resize'].scale == (1333, 800)
    assert train['Resize'].keep_ratio
    assert train['RandomFlip'].prob == 0.5
    assert cfg.model.data_preprocessor.pad_size_divisor == 32
    assert 'sync_bn' not in cfg


def test_retinanet_levels_equal_start_level_1_over_four_stages():
    neck = load(RETINANET.format('s')).model.neck
    assert neck == dict(
        type='FPN',
        in_channels=[128, 256, 512],
        out_channels=256,
        start_level=0,
        add_extra_convs='on_input',
        num_outs=5,
    )
    model = build_model(load(RETINANET.format('t')))
    levels = model.extract_feat(torch.rand(1, 3, 256, 256))
    strides = model.bbox_head.prior_generator.strides
    assert [256 // level.shape[-1] for level in levels] == [stride[0] for stride in strides]


@pytest.mark.parametrize('family', [SEMANTIC_FPN, UPERNET])
def test_segmentation_data(family, sample):
    cfg = load(family.format('s'))
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(train) == [
        'LoadImageFromFile', 'LoadAnnotations', 'RandomResize', 'RandomCrop', 'RandomFlip',
        'PhotoMetricDistortion', 'PackSegInputs',
    ]  # fmt: skip
    assert train['RandomResize'].scale == (2048, 512)
    assert train['RandomResize'].ratio_range == (0.5, 2.0)
    assert train['RandomCrop'] == dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75)
    assert train['RandomFlip'].prob == 0.5
    assert cfg.model.data_preprocessor.size == (512, 512)
    assert cfg.model.test_cfg.mode == 'whole'

    packed = compose(cfg, cfg.train_dataloader.dataset.pipeline)(sample)
    assert max(packed['inputs'].shape[1:]) <= 512
    assert packed['data_samples'].gt_sem_seg.data.max() in range(150, 256)  # 255: ignored


@pytest.mark.parametrize('family', [SEMANTIC_FPN, UPERNET])
def test_segmentation_is_measured_at_the_original_size(family, sample):
    cfg = load(family.format('t'))
    packed = compose(cfg, cfg.test_dataloader.dataset.pipeline)(sample)
    # 512 is 90 scaled by 5.69, which makes 740 of 130; 768 is the next multiple of 32.
    width = 768 if family == SEMANTIC_FPN else 740
    assert packed['inputs'].shape == (3, 512, width)
    assert packed['data_samples'].gt_sem_seg.shape == (90, 130)

    logits = torch.rand(1, 150, 512, width)
    (result,) = build_model(cfg).postprocess_result(logits, [packed['data_samples']])
    assert result.pred_sem_seg.shape == (90, 130)


@pytest.mark.parametrize('size', 'tsb')
@pytest.mark.parametrize('family', [SEMANTIC_FPN, UPERNET])
def test_multi_scale_flip_tta(family, size, sample):
    cfg = load(family.format(size))
    views = compose(cfg, cfg.tta_pipeline)(sample)
    shapes = [tuple(view.shape[1:]) for view in views['inputs']]
    flips = [view.flip for view in views['data_samples']]
    heights = [int(512 * ratio) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert [height for height, _ in shapes] == [h for h in heights for _ in range(2)]
    assert flips == [False, True] * 6
    if family == SEMANTIC_FPN:
        assert all(width % 32 == 0 for _, width in shapes)

    if size == 't':
        tta_model = dict(cfg.tta_model, module=cfg.model)
        with in_scope(cfg):
            assert MODELS.build(tta_model).module.num_classes == 150


@pytest.mark.parametrize('family', [SEMANTIC_FPN, UPERNET])
def test_batch_norm_synchronises_when_distributed(family):
    from mmengine.model import convert_sync_batchnorm

    cfg = load(family.format('t'))
    assert cfg.sync_bn == 'torch'
    model = build_model(cfg)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert count > 5
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    model = convert_sync_batchnorm(model, cfg.sync_bn)
    assert count == sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


@pytest.mark.parametrize('family', RECIPES)
def test_every_backbone_parameter_gets_a_gradient(family):
    model = build_model(load(family.format('t')))
    sum(feature.sum() for feature in model.extract_feat(torch.rand(2, 3, 64, 64))).backward()
    assert not [name for name, p in model.backbone.named_parameters() if p.grad is None]


@pytest.mark.parametrize('family', RECIPES)
def test_weight_decay_of_norm_layers(family):
    cfg = load(family.format('t'))
    model = build_model(cfg)
    # AmpOptimWrapper refuses to be built without an accelerator.
    wrapper_cfg = dict(cfg.optim_wrapper, type='OptimWrapper')
    del wrapper_cfg['loss_scale']
    optimizer = build_optim_wrapper(model, wrapper_cfg).optimizer
    weight_decay = RECIPES[family]['optimizer']['weight_decay']
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for p in module.parameters()
    }
    assert norms
    for group in optimizer.param_groups:
        for p in group['params']:
            decays = RECIPES[family]['decay_norms'] or id(p) not in norms
            assert group['weight_decay'] == (weight_decay if decays else 0.0)


@pytest.mark.parametrize('family', [SEMANTIC_FPN, UPERNET])
def test_segmentation_learning_rate(family):
    """The warm-up multiplies the decay, as in the published runs."""
    cfg = load(family.format('s'))
    assert all(s.begin == 0 and not s.by_epoch for s in cfg.param_scheduler)
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_iters
    lr = cfg.optim_wrapper.optimizer.lr

    def expected(i: int) -> float:
        if family == SEMANTIC_FPN:
            warm_up = 0.1 + (1 - 0.1) * min(i / 1000, 1)
            return lr * warm_up * (1 + cos(pi * i / 80000)) / 2
        warm_up = 1e-6 + (1 - 1e-6) * min(i / 1500, 1)
        return lr * warm_up * (1 - i / 160000)

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler
    ]
    for i in range(2500):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected(i), rel=2e-3), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('family', [RETINANET, MASK_RCNN])
def test_detection_learning_rate(family):
    warm_up, steps = load(family.format('s')).param_scheduler
    # `_scope_` is mmengine's mark on what it read through `mmdet::`.
    assert warm_up == dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500, _scope_='mmdet'
    )
    assert steps == dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
        _scope_='mmdet',
    )


@pytest.mark.parametrize('size', 'tb')
@pytest.mark.parametrize('family', RECIPES)
def test_variants_differ_only_in_the_backbone_and_its_widths(family, size):
    base, variant = (flatten(load(family.format(s)).to_dict()) for s in ('s', size))
    differing = {key for key in base.keys() | variant.keys() if base.get(key) != variant.get(key)}
    allowed = {'model.backbone.arch', 'model.backbone.drop_path_rate'}
    if size == 'b':
        allowed |= {
            f'model.{part}.in_channels' for part in ('neck', 'decode_head', 'auxiliary_head')
        }
    assert 'model.backbone.arch' in differing
    assert differing <= allowed
    widths = EMBED_DIMS[size][1:] if family == RETINANET else EMBED_DIMS[size]
    reader = 'decode_head' if family == UPERNET else 'neck'
    assert variant[f'model.{reader}.in_channels'] == widths


def flatten(value: dict, prefix: str = '') -> dict:
    """``{'a': {'b': 1}}`` to ``{'a.b': 1}``; lists stay values."""
    flat = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= flatten(item, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = item
    return flat
