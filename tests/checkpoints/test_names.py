"""The tables of names, against the names in files of the official code."""

import pytest
import torch
from golden import golden_cases

from mmbiformer import BiFormer, CloFormer
from mmbiformer.backbones import BiFormerSTL
from mmbiformer.checkpoints import BIFORMER, BIFORMER_STL, CLOFORMER

CASES = golden_cases()
STL_CASES = golden_cases('official_biformer_stl.json')


@pytest.mark.parametrize('case', [x for x in CASES if CASES[x]['kind'] == 'backbone'])
def test_every_official_name_of_the_dense_models_is_one_of_ours(case):
    case = CASES[case]
    with torch.device('meta'):
        backbone = BiFormer(case['arch'], partition_factor=case['n_win'])
    shapes = {name: list(x.shape) for name, x in backbone.state_dict().items()}
    assert {BIFORMER.ours(name): shape for name, shape in case['params'].items()} == shapes
    assert {BIFORMER.official(name) for name in shapes} == case['params'].keys()


def test_names_of_ours_stay():
    for name in BiFormer('t').state_dict():
        assert BIFORMER.ours(name) == name


def test_names_of_earlier_versions_are_ours():
    assert BIFORMER.ours('stages.1.0.mlp.0.weight') == 'stages.1.0.mlp.fc1.weight'
    assert BIFORMER.ours('stages.1.0.mlp.2.bias') == 'stages.1.0.mlp.fc2.bias'


@pytest.mark.parametrize('name', STL_CASES)
def test_every_official_name_of_stl_is_one_of_ours(name):
    with torch.device('meta'):
        backbone = BiFormerSTL()
    shapes = {
        name: list(x.shape)
        for name, x in backbone.state_dict().items()
        if not name.startswith('norm')  # of the outputs, which a classifier does not have
    }
    of_backbone = {
        name: shape
        for name, shape in STL_CASES[name]['params'].items()
        if not name.startswith(('norm.', 'head.'))
    }
    assert {BIFORMER_STL.ours(name): shape for name, shape in of_backbone.items()} == shapes
    assert {BIFORMER_STL.official(name) for name in shapes} == of_backbone.keys()
    for name in backbone.state_dict():
        assert BIFORMER_STL.ours(name) == name


CLOFORMER_CASES = golden_cases('official_cloformer.json')


@pytest.mark.parametrize('name', [x for x in CLOFORMER_CASES if not x.startswith('attn')])
def test_every_official_name_of_cloformer_is_one_of_ours_or_the_classifiers(name):
    case = CLOFORMER_CASES[name]
    with torch.device('meta'):
        backbone = CloFormer(case['arch'])
    expected = {x for x in backbone.state_dict() if not x.startswith('norm')}
    classifier = {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert {CLOFORMER.ours(official) for official in case['params']} == expected | classifier
    assert {CLOFORMER.official(ours) for ours in expected} == case['params'].keys() - classifier
    assert {CLOFORMER.ours(ours) for ours in expected} == expected
