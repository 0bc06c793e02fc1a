"""The configs of the size benchmark: one recipe, backbones of equal cost, all of it trained."""

from itertools import pairwise

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from zoo import CONFIGS, load

from mmbiformer.benchmark.cost import backbone_flops
from mmbiformer.datasets import shapes
from mmbiformer.experiments.size_comparison import IMAGE_SIZE

NAMES = sorted(name for name, path in CONFIGS.items() if path.parent.name == 'size_benchmark')


def build(name: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(load(name).model)


def test_the_backbones_are_the_expected_ones():
    types = {load(name).model.backbone.type for name in NAMES}
    assert types == {'mmbiformer.BiFormer', 'SwinTransformer', 'ResNet'}
    assert len(NAMES) == 3


def test_configs_differ_in_the_backbone_alone():
    recipes = []
    for name in NAMES:
        cfg = load(name)
        del cfg.model.backbone, cfg.model.neck.in_channels
        recipes.append(cfg.to_dict())
    assert recipes[0] == recipes[1] == recipes[2]


def test_flops_and_parameters_are_matched():
    backbones = [build(name).backbone for name in NAMES]
    flops = [backbone_flops(backbone, (IMAGE_SIZE, IMAGE_SIZE)) for backbone in backbones]
    assert max(flops) < 1.1 * min(flops)
    assert min(flops) > 0.6e9
    sizes = [sum(p.numel() for p in backbone.parameters()) for backbone in backbones]
    assert max(sizes) < 1.2 * min(sizes)


def test_biformer_is_that_of_the_quickstart():
    here = load('retinanet_biformer_shapes').model.backbone
    quickstart = load('retinanet_biformer_quickstart_shapes').model.backbone
    differing = {key for key in here if here[key] != quickstart[key]}
    assert here.keys() == quickstart.keys()
    assert differing == {'partition_factor', 'out_indices'}


@pytest.mark.parametrize('name', NAMES)
def test_everything_is_trained_from_scratch(name):
    backbone = load(name).model.backbone
    assert 'init_cfg' not in backbone
    assert backbone.get('drop_path_rate', 0) == 0
    model = build(name)
    model.train()
    # In eval mode, BatchNorm would divide by the statistics it begins with.
    assert all(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    levels = model.extract_feat(torch.rand(2, 3, 64, 64))
    sum(level.square().sum() for level in levels).backward()
    parts = dict(backbone=model.backbone, neck=model.neck)
    assert not [
        f'{part}.{parameter}'
        for part, module in parts.items()
        for parameter, p in module.named_parameters()
        if p.grad is None
    ]


def test_anchors_cover_the_objects():
    generator = build(NAMES[0]).bbox_head.prior_generator
    sides = sorted(float(x2 - x1) for x1, _, x2, _ in torch.cat(generator.base_anchors))
    assert max(b / a for a, b in pairwise(sides)) < 1.3  # IoU above 0.6
    # Boxes are about a third longer than the square root of the area.
    least, most = (4 / 3 * side for side in shapes.SIDES)
    assert sides[0] < 1.5 * least
    assert sides[-1] > most


@pytest.mark.parametrize('name', NAMES)
def test_the_test_split_is_seen_once_after_training(name):
    cfg = load(name)
    assert cfg.train_cfg.val_begin > cfg.train_cfg.max_epochs
    (cosine,) = [x for x in cfg.param_scheduler if x.type == 'CosineAnnealingLR']
    assert cosine.end == cosine.T_max == cfg.train_cfg.max_epochs
    roots = {cfg[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')}
    assert roots == {'work_dirs/size_benchmark/small/shapes/'}
    assert cfg.test_evaluator.ann_file.startswith(*roots)
