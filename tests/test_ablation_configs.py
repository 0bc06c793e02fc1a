"""The configs of the ablation differ in the attention, or in one step towards BiFormer, alone."""

import pytest
from mmengine.registry import MODELS, DefaultScope
from zoo import ABLATION, load

from mmbiformer import BiFormer
from mmbiformer.backbones import BiFormerSTL, SwinLayout
from mmbiformer.backbones.slots import SLOTS
from mmbiformer.benchmark.ablation_rows import ROWS, STEPS
from mmbiformer.experiments.ablation import SHAPES

METHODS = ('retinanet', 'fpn')


def config_name(method: str, row: str) -> str:
    return f'{method}_{row.replace("_", "-")}_shapes'


def build_backbone(name: str) -> SwinLayout:
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model.backbone)


def test_there_is_one_for_each_row_and_method():
    assert sorted(ABLATION) == sorted(config_name(x, row) for x in METHODS for row in ROWS)


@pytest.mark.parametrize('method', METHODS)
def test_one_recipe_for_all(method):
    recipes = []
    for row in ROWS:
        cfg = load(config_name(method, row)).to_dict()
        del cfg['model']['backbone']
        recipes.append(cfg)
    assert all(recipe == recipes[0] for recipe in recipes)
    data = recipes[0]['train_dataloader']
    if method == 'retinanet':
        steps = recipes[0]['train_cfg']['max_epochs'] * SHAPES['num_train'] / data['batch_size']
        assert steps == 600
        (cosine,) = [x for x in recipes[0]['param_scheduler'] if x['type'] != 'LinearLR']
        assert cosine['T_max'] == cosine['end'] == recipes[0]['train_cfg']['max_epochs']
    else:
        assert recipes[0]['train_cfg']['max_iters'] == 500


@pytest.mark.parametrize('row', [row for row in ROWS if row in SLOTS])
def test_slots_have_their_attention_in_one_layout(row):
    attentions = []
    for method in METHODS:
        backbone = build_backbone(config_name(method, row))
        assert tuple(backbone.embed_dims) == (32, 64, 128, 256)
        assert [len(stage) for stage in backbone.stages] == [2, 2, 2, 2]
        attentions.append([type(x.attn) for stage in backbone.stages for x in stage])
    arch = dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 2, 2))
    expected = SwinLayout(arch, attention=row)
    assert attentions[0] == attentions[1]
    assert attentions[0] == [type(x.attn) for stage in expected.stages for x in stage]


def test_steps_lead_from_stl_to_biformer():
    stl, *steps = (build_backbone(config_name('fpn', row)) for row in ('routing', *STEPS))
    assert isinstance(stl, BiFormerSTL)
    arch = dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 4, 2))
    biformer = BiFormer(arch, partition_factor=5)
    shapes = {name: x.shape for name, x in biformer.state_dict().items()}
    assert {name: x.shape for name, x in steps[-1].state_dict().items()} == shapes
    known = [stl.state_dict().keys(), *(step.state_dict().keys() for step in steps)]
    assert len({frozenset(names) for names in known}) == len(known), 'a step changes nothing'
