"""The official CloFormer's outputs and gradients, to 1e-9 of their largest value."""

import pytest
import torch
from golden import assert_grads, assert_probe, golden_cases, normal, official_state_dict
from torch import nn

from mmbiformer import CloFormer
from mmbiformer.checkpoints import CLOFORMER
from mmbiformer.layers import CloAttention

CASES = golden_cases('official_cloformer.json')
CLASSIFIERS = [name for name, case in CASES.items() if case['kind'] == 'classifier']
ATTENTIONS = [name for name, case in CASES.items() if case['kind'] == 'attention']


def assert_gradients(case: dict, x: torch.Tensor, out: torch.Tensor, named: dict) -> None:
    """Back-propagate the loss of the golden file; check the input's and all parameters' gradients.

    ``named`` has the parameters by our names.
    """
    (out * normal(case['seed'] + 1, out.shape)).sum().backward()
    assert_probe(x.grad, case['grad_input'])
    ours = {official: CLOFORMER.ours(f'block.{official}') for official in case['grad_params']}
    if case['kind'] == 'classifier':
        ours = {official: CLOFORMER.ours(official) for official in case['grad_params']}
    grads = {official: named[name.removeprefix('block.')].grad for official, name in ours.items()}
    assert len({id(grad) for grad in grads.values()}) == len(named)
    assert_grads(grads, case['grad_params'])


def test_the_file_has_the_expected_cases():
    assert len(CLASSIFIERS) == len(ATTENTIONS) == 3


@pytest.mark.parametrize('name', ATTENTIONS)
def test_attention(name):
    case = CASES[name]
    args = case['args']
    *conv_heads, global_heads = args['group_split']
    attention = CloAttention(
        args['dim'], conv_heads, args['kernel_sizes'], global_heads, args['window_size']
    ).double()
    assert attention.num_heads == args['num_heads']
    expected = attention.state_dict()
    weights = {
        CLOFORMER.ours(f'block.{official}').removeprefix('block.'): value
        for official, value in official_state_dict(case).items()
    }
    attention.load_state_dict({k: v.reshape(expected[k].shape) for k, v in weights.items()})
    x = normal(case['seed'], case['input_shape']).requires_grad_()
    out = attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
    assert_probe(out.detach(), case['output'])
    assert_gradients(case, x, out, dict(attention.named_parameters()))


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name):
    # The backbone under the official head: a GroupNorm, the mean over the map, a linear layer.
    case = CASES[name]
    weights = official_state_dict(case)
    backbone = CloFormer(case['arch'], out_indices=(3,))
    backbone.norm3 = nn.Identity()  # the official head sees the map before any output norm
    backbone.double().load_state_dict(weights)
    dim = backbone.embed_dims[-1]
    classifier = nn.ModuleDict(dict(norm=nn.GroupNorm(1, dim), head=nn.Linear(dim, 1000))).double()
    classifier.load_state_dict({n: v for n, v in weights.items() if n.split('.')[0] in classifier})
    model = nn.ModuleList([backbone, classifier]).eval()
    assert sum(p.numel() for p in model.parameters()) == case['n_params']

    maps = []  # what goes into each strided block, and what comes out
    for layer in backbone.downsample_layers[1:]:
        layer.register_forward_hook(lambda _, args, out: maps.extend([args[0], out]))
    x = normal(case['seed'], case['input_shape']).requires_grad_()
    (features,) = backbone(x)
    # The seventh probe is the map before the last block, inside of our last stage.
    maps.append(features)
    probes = case['stage_probes'][:6] + case['stage_probes'][7:]
    for stage_map, probe in zip(maps, probes, strict=True):
        assert_probe(stage_map.detach().contiguous(), probe)
    logits = classifier['head'](classifier['norm'](features).flatten(2).mean(-1))
    assert_probe(logits.detach(), case['outputs'][0])
    params = dict(backbone.named_parameters()) | dict(classifier.named_parameters())
    assert_gradients(case, x, logits, params)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_outputs_are_the_maps_between_the_stages(name):
    # The dense form under official weights, without the output norms, which are ours.
    case = CASES[name]
    backbone = CloFormer(case['arch']).double().eval()
    for stage in range(4):
        setattr(backbone, f'norm{stage}', nn.Identity())
    backbone.load_state_dict(official_state_dict(case))
    with torch.no_grad():
        outs = backbone(normal(case['seed'], case['input_shape']))
    # The strided blocks take the maps of the first three stages; the last comes out of stage 4.
    for out, index in zip(outs, (0, 2, 4, 7), strict=True):
        assert_probe(out, case['stage_probes'][index])
