"""Layer-wise decay of the learning rate."""

import pytest
from backbones import FAMILIES, build
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmbiformer.errors import UserError

LR, RATE = 1e-3, 0.5


def make_model(family: str, backbone: nn.Module | None = None, **options) -> nn.Module:
    model = nn.Module()
    model.backbone = build(family, **options) if backbone is None else backbone
    model.head = nn.Linear(4, 2)
    return model


def learning_rates(model: nn.Module, **paramwise) -> dict[str, float]:
    config = dict(
        optimizer=dict(type='AdamW', lr=LR, weight_decay=0.05),
        constructor='mmbiformer.LayerDecayOptimWrapperConstructor',
        paramwise_cfg={'decay_rate': RATE, **paramwise},
    )
    optimizer = build_optim_wrapper(model, config).optimizer
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {
        names[parameter]: group['lr']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    assert rates.keys() == {name for name, x in model.named_parameters() if x.requires_grad}
    return rates


@pytest.mark.parametrize('family', FAMILIES)
def test_each_block_is_a_layer(family):
    model = make_model(family)
    rates = learning_rates(model)
    num_blocks = sum(len(stage) for stage in model.backbone.stages)
    layer = 0
    for i, stage in enumerate(model.backbone.stages):
        for j in range(len(stage)):
            layer += 1
            expected = LR * RATE ** (num_blocks + 1 - layer)
            own = [x for name, x in rates.items() if name.startswith(f'backbone.stages.{i}.{j}.')]
            if i and not j:
                opening = f'backbone.downsample_layers.{i}.'
                own += [x for name, x in rates.items() if name.startswith(opening)]
            assert own == pytest.approx([expected] * len(own), rel=1e-12)
            assert own
    stem = {x for name, x in rates.items() if name.startswith('backbone.downsample_layers.0.')}
    assert stem == {LR * RATE ** (num_blocks + 1)}
    assert {rates['head.weight'], rates['backbone.norm3.weight']} == {LR}


def test_with_other_keys_of_mmengine():
    model = make_model('BiFormer', frozen_stages=1)
    custom = {'backbone.stages.3': dict(lr_mult=10.0), 'head': dict(lr_mult=2.0)}
    rates = learning_rates(model, custom_keys=custom, norm_decay_mult=0.0)
    last = len(model.backbone.stages[3]) - 1
    assert rates[f'backbone.stages.3.{last}.mlp.fc1.weight'] == pytest.approx(10 * LR * RATE)
    assert rates['head.weight'] == 2 * LR


def test_mmpretrains_constructor_takes_the_layers():
    from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor

    model = build('BiFormer')
    optimizer = dict(type='AdamW', lr=LR, weight_decay=0.05)
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=optimizer), dict(layer_decay_rate=RATE)
    )
    groups = constructor(model).optimizer.param_groups
    rates = {parameter: group['lr'] for group in groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        layer, num_layers = model.get_layer_depth(name)
        assert rates[parameter] == pytest.approx(LR * RATE ** (num_layers - 1 - layer))


@pytest.mark.parametrize('rate', [None, 0, 1.5, '0.9'])
def test_a_rate_out_of_range_is_named(rate):
    with pytest.raises(UserError, match=r'^paramwise_cfg.decay_rate=.* must be more than 0'):
        learning_rates(make_model('BiFormer'), decay_rate=rate)


def test_another_backbone_is_named():
    with pytest.raises(
        UserError, match=r'^layer-wise decay: the backbone, a Linear, does not say'
    ):
        learning_rates(make_model('', nn.Linear(2, 2)))
