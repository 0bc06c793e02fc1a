"""The configs of routed attention in YOLOX and RTMDet: the plain recipe, and another neck."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from zoo import CONFIGS, load

from mmbiformer.necks import AttentionNeck

COCO = {
    'yolox-s_bra-{}_8xb8-300e_coco': 'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    'rtmdet-s_bra-{}_8xb32-300e_coco': 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
}
LEVELS = {'p3': (0,), 'p3-p4-p5': (0, 1, 2)}
SHAPES = ['yolox_shapes', 'yolox_bra-p3_shapes', 'yolox_bra-p3-p4-p5_shapes']


@pytest.mark.parametrize('levels', LEVELS)
@pytest.mark.parametrize('name', COCO)
def test_only_the_neck_differs_from_the_recipe_of_mmdet(name, levels, tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text(f'_base_ = {COCO[name]!r}\n')
    cfg, plain = load(name.format(levels)).to_dict(), Config.fromfile(path).to_dict()
    neck = cfg['model']['neck']
    assert neck['type'] == 'mmbiformer.AttentionNeck'
    assert tuple(neck['levels']) == LEVELS[levels]
    assert neck['inside']
    cfg['model']['neck'] = neck['neck']
    assert cfg.pop('attention') == neck['attention']
    if name.startswith('rtmdet'):
        assert plain['auto_scale_lr'].pop('base_batch_size') == 16  # not that of the recipe
        assert cfg['auto_scale_lr'].pop('base_batch_size') == 8 * 32
    assert cfg.pop('custom_imports')['imports'] == ['mmbiformer']  # the loader of checkpoints
    saving = cfg['default_hooks']['checkpoint']
    assert saving['type'] == 'mmbiformer.CrashSafeCheckpointHook'
    saving['type'] = 'CheckpointHook'
    assert cfg['default_hooks'].pop('exact_resume') == dict(type='mmbiformer.ExactResumeHook')
    assert cfg['default_hooks'].pop('stop') == dict(type='mmbiformer.SafeStopHook')
    assert cfg == plain


def test_small_detectors_differ_in_the_attention_alone():
    configs = [load(name).to_dict() for name in SHAPES]
    necks = [cfg['model'].pop('neck') for cfg in configs]
    assert configs[1].pop('attention') == configs[2].pop('attention')
    assert configs[0] == configs[1] == configs[2]
    plain, p3, all_levels = necks
    assert p3['neck'] == all_levels['neck'] == plain
    assert tuple(p3.pop('levels')) == (0,)
    assert tuple(all_levels.pop('levels')) == (0, 1, 2)
    assert p3 == all_levels


def test_all_have_the_options_of_the_tutorials():
    names = [name for name, path in CONFIGS.items() if path.parent.name == 'plugin']
    for name in set(names) - {'yolox_shapes'}:
        assert load(name).model.neck.attention.to_dict() == dict(
            type='mmbiformer.BiLevelRoutingAttention',
            num_heads=8,
            partition_factor=7,
            topk=4,
            lce_kernel=3,
        )


def test_the_small_detector_is_half_as_wide_as_yolox_s():
    with DefaultScope.overwrite_default_scope('mmdet'):
        small = MODELS.build(load(SHAPES[0]).model)
        neck = MODELS.build(load(SHAPES[2]).model.neck)
    large = get_config(COCO['yolox-s_bra-{}_8xb8-300e_coco']).model
    assert [2 * x for x in small.neck.in_channels] == large.neck.in_channels
    assert 2 * small.neck.out_channels == large.neck.out_channels
    assert isinstance(neck, AttentionNeck)
    assert [x.qkv.in_features for x in neck.attentions] == small.neck.in_channels
    maps = small.eval().extract_feat(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in maps] == [(8, 12), (4, 6), (2, 3)]
