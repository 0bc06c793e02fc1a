"""The official BiFormer-STL's outputs and gradients, to 1e-9 of their largest value."""

import pytest
from golden import assert_grads, assert_probe, golden_cases, normal, official_state_dict
from torch import nn

from mmbiformer.backbones import BiFormerSTL
from mmbiformer.checkpoints import BIFORMER_STL
from mmbiformer.layers import LAYER_NORM_EPS

CASES = golden_cases('official_biformer_stl.json')


def test_the_file_has_the_expected_cases():
    assert CASES.keys() == {'stl_224', 'stl_448'}
    for case in CASES.values():
        assert case['kind'] == 'classifier'
        assert case['grad_params'].keys() == case['params'].keys()


# The reference backend's backward is as slow as the official one: one case shows that it is right.
@pytest.mark.parametrize(
    ('name', 'backend'),
    [('stl_224', 'chunked'), ('stl_448', 'chunked'), ('stl_224', 'reference')],
)
def test_classifier(name, backend):
    # The backbone under the official head: a LayerNorm, the mean over the map, a linear layer.
    case = CASES[name]
    backbone = BiFormerSTL(
        partition_factor=case['n_win'], out_indices=(3,), attention_backend=backend
    )
    backbone.norm3 = nn.Identity()  # the official head sees the map before any output norm
    weights = official_state_dict(case)
    backbone.double().load_state_dict(weights)
    norm, head = nn.LayerNorm(768, LAYER_NORM_EPS), nn.Linear(768, 1000)
    classifier = nn.ModuleDict(dict(norm=norm, head=head)).double()
    classifier.load_state_dict({n: v for n, v in weights.items() if n.split('.')[0] in classifier})
    model = nn.ModuleList([backbone, classifier]).eval()
    assert sum(p.numel() for p in model.parameters()) == case['n_params']

    x = normal(case['seed'], case['input_shape']).requires_grad_()
    (features,) = backbone(x)
    logits = head(norm(features.permute(0, 2, 3, 1)).mean((1, 2)))
    assert_probe(logits.detach(), case['outputs'][0])
    (logits * normal(case['seed'] + 1, logits.shape)).sum().backward()
    assert_probe(x.grad, case['grad_input'])
    params = dict(backbone.named_parameters()) | dict(classifier.named_parameters())
    grads = {name: params[BIFORMER_STL.ours(name)].grad for name in case['grad_params']}
    assert len({id(grad) for grad in grads.values()}) == len(params)
    assert_grads(grads, case['grad_params'])
