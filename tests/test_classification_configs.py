"""Classification configs: the published recipe, the published cost, and data that pass through."""

from math import cos, pi

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from zoo import CLASSIFIERS, load

# Class, architecture, drop path, and as published: parameters in M, G multiply-adds at 224.
BACKBONES = {
    'biformer-t': ('BiFormer', 't', 0.1, 13.1, 2.2),
    'biformer-s': ('BiFormer', 's', 0.15, 25.5, 4.5),
    'biformer-b': ('BiFormer', 'b', 0.4, 56.8, 9.8),
    'biformer-stl': ('BiFormerSTL', 't', 0.1, 28.4, 4.6),
    'cloformer-xxs': ('CloFormer', 'xxs', 0.0, 4.2, 0.6),
    'cloformer-xs': ('CloFormer', 'xs', 0.06, 7.2, 1.1),
    'cloformer-s': ('CloFormer', 's', 0.06, 12.3, 2.0),
}


def in_scope():
    return DefaultScope.overwrite_default_scope('mmpretrain')


def backbone_of(name: str) -> tuple:
    return BACKBONES[name.removesuffix('_8xb128_in1k')]


def test_every_classifier_has_its_numbers():
    assert [f'{name}_8xb128_in1k' for name in BACKBONES] == CLASSIFIERS


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_recipe(name):
    cfg, (kind, arch, drop_path_rate, *_) = load(name), backbone_of(name)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch) == (f'mmbiformer.{kind}', arch)
    assert backbone.get('drop_path_rate', 0.0) == drop_path_rate
    assert backbone.get('partition_factor', 7) == 7
    assert (backbone.out_indices, backbone.output_norm) == ((3,), 'classification')
    assert cfg.model.type == 'mmbiformer.classification.ImageClassifier'

    assert cfg.train_dataloader.batch_size == 128
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=1024)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == 224
    augment = steps['RandAugment']
    assert (augment.policies, augment.magnitude_level) == ('timm_increasing', 9)
    assert (augment.magnitude_std, augment.total_level) == (0.5, 10)
    assert steps['RandomErasing'].erase_prob == 0.25
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == [
        *('LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs')
    ]
    assert cfg.val_evaluator == dict(type='Accuracy', topk=(1, 5))
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_variants_differ_in_the_backbone_and_its_width_alone(name):
    cfg, base = load(name), load('biformer-s_8xb128_in1k')
    del cfg.model.backbone, base.model.backbone
    del cfg.model.head['in_channels'], base.model.head['in_channels']
    assert cfg.to_dict() == base.to_dict()


def dense_convolution(x, weight, *rest, out_shape=None, **_) -> int:
    """As PyTorch counts it, without depthwise ones."""
    transposed = rest[4]
    return 0 if weight[1] == 1 else conv_flop_count(x, weight, out_shape, transposed)


# The published ones of CloFormer leave out depthwise convolutions and products of attention.
AS_PUBLISHED = {
    'CloFormer': {
        torch.ops.aten.convolution: dense_convolution,
        torch.ops.aten.bmm: lambda *_, **__: 0,
    }
}


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_cost_rounds_to_the_published(name):
    kind, *_, parameters, multiply_adds = backbone_of(name)
    cfg = load(name).model
    cfg.train_cfg = None
    # Without data: on CPUs PyTorch counts nothing of its own attention.
    with in_scope(), torch.device('meta'):
        model = MODELS.build(cfg).eval()
        images = torch.empty(1, 3, 224, 224)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == parameters
    counter = FlopCounterMode(display=False, custom_mapping=AS_PUBLISHED.get(kind))
    with torch.no_grad(), counter:
        model(images, mode='tensor')
    assert round(counter.get_total_flops() / 2e9, 1) == multiply_adds


def test_the_shapes_have_no_option_that_changes_nothing():
    assert 'dataset' not in load('biformer_quickstart_shapes')


def test_learning_rate():
    """Linear warm-up over 5 epochs, then a cosine that ends with the last of 300."""
    cfg = load('biformer-s_8xb128_in1k')
    epoch_length = 10
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        assert scheduler.by_epoch
        scheduler = dict(scheduler, epoch_length=epoch_length)
        assert scheduler.pop('convert_to_iter_based')
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        schedulers.append(kind.build_iter_from_epoch(optimizer, **scheduler))
    rates = []
    for _ in range(300 * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    warm_up = 5 * epoch_length
    for i, rate in enumerate(rates):
        if i < warm_up:
            expected = 1e-3 * (1e-3 + (1 - 1e-3) * i / (warm_up - 1))
        else:
            turn = pi * (i - warm_up) / (300 * epoch_length - warm_up)
            expected = 1e-5 + (1e-3 - 1e-5) * (1 + cos(turn)) / 2
        assert rate == pytest.approx(expected, rel=0.03), i


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_norms_and_biases_do_not_decay(name):
    from mmengine.optim import build_optim_wrapper

    cfg = load(name)
    with in_scope():
        model = MODELS.build(cfg.model)
        wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
        del wrapper['loss_scale']
        groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    norms = nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm
    for module in model.modules():
        for kind, p in module.named_parameters(recurse=False):
            expected = 0.0 if isinstance(module, norms) or kind == 'bias' else 0.05
            assert decays[id(p)] == expected, (module, kind)


def test_an_image_passes_the_pipelines(tmp_path):
    import cv2

    cfg = load('biformer-t_8xb128_in1k')
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    sample = dict(img_path=str(tmp_path / 'image.png'), gt_label=7)
    with in_scope():
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            np.random.seed(0)
            packed = Compose(loader.dataset.pipeline)(dict(sample))
            assert packed['inputs'].shape == (3, 224, 224)
            assert packed['data_samples'].gt_label.tolist() == [7]


def test_labels_of_the_shapes_are_their_folders(tmp_path):
    from mmbiformer.datasets.single_shapes import make_single_shapes

    root = make_single_shapes(tmp_path / 'single', num_train=6, num_val=6)
    dataset = load('biformer_quickstart_shapes').train_dataloader.dataset
    with in_scope():
        data = DATASETS.build(dict(dataset, data_root=str(root)))
    for info in (data.get_data_info(i) for i in range(len(data))):
        assert f'/{data.metainfo["classes"][info["gt_label"]]}/' in info['img_path']
