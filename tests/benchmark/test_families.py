"""The table of families says of each what its classes and configs say."""

import pytest
import torch
from toolbox import ROOT

from mmbiformer.benchmark.cases import Case, known_models
from mmbiformer.benchmark.families import FAMILIES, FAMILY_OF
from mmbiformer.benchmark.steps import default_backend
from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.ops import BACKENDS, cpp_backend


def test_no_two_architectures_have_one_name():
    assert len(FAMILY_OF) == sum(len(family.archs) for family in FAMILIES) >= 3


@pytest.mark.parametrize('arch', FAMILY_OF)
def test_layout_is_that_of_the_built_backbone(arch):
    family = FAMILY_OF[arch]
    with torch.device('meta'):
        backbone = family.backbone(family.archs[arch])
    layout = family.layout(arch)
    assert len(layout) == len(backbone.stages)
    for stage, (dim, depth, topk) in enumerate(layout):
        attention = family.attention(backbone, stage)
        assert attention.proj.out_features == dim
        assert len(backbone.stages[stage]) == depth
        assert isinstance(attention, BiLevelRoutingAttention) == (topk is not None)
        assert getattr(attention, 'topk', None) == topk
    depths = {stage: depth for stage, (_, depth, topk) in enumerate(layout) if topk is not None}
    assert depths[family.main_stage] == max(depths.values())


@pytest.mark.parametrize('arch', FAMILY_OF)
def test_every_architecture_has_its_detector(arch):
    assert (ROOT / 'configs' / FAMILY_OF[arch].detector_config.format(arch=arch)).is_file()


@pytest.mark.parametrize('level', ['op', 'backbone', 'detector'])
def test_rows_are_the_backends_themselves(level):
    assert set(BACKENDS) == {'reference', 'chunked', 'cpp', 'triton', 'flex'}
    assert set(known_models(level)) >= set(BACKENDS)
    assert 'auto' not in known_models(level)


def test_growth_and_advice_take_what_the_backbone_takes(monkeypatch):
    monkeypatch.setattr(cpp_backend, 'fault', lambda: None)
    case = Case('backbone', 'auto', 'inference', 't', (64, 64), 4, 1, 'cpu', 'fp32')
    assert default_backend(case) == 'cpp'
