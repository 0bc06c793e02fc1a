"""The official implementation's outputs and gradients, to 1e-9 of their largest value."""

from importlib.util import find_spec

import pytest
import torch
from golden import TOLERANCE, assert_grads, assert_probe, golden_cases, normal, official_state_dict
from torch import nn

from mmbiformer import BiFormer
from mmbiformer.checkpoints import BIFORMER
from mmbiformer.layers import BiLevelRoutingAttention

CASES = golden_cases()
BACKBONES = [name for name, case in CASES.items() if case['kind'] == 'backbone']
ATTENTIONS = [name for name, case in CASES.items() if case['kind'] == 'attention']
# What BiFormer itself needs of the module, which the kernels can carry.
ROUTED = ['attn_divisible', 'attn_padded', 'attn_all_pad_regions', 'attn_topk_all']
POOLINGS = dict(ada_avgpool='AdaptiveAvg', ada_maxpool='AdaptiveMax', avgpool='Avg', maxpool='Max')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
CLASSIFIER = 'tiny_224_classification'
# The reference backend's backward is as slow as the official one; the tiny case shows it is right.
FORWARD_ONLY = {('small_detection_S16_not_divisible', 'reference')}


def assert_gradients(
    case: dict, x: torch.Tensor, outs, named_grads, tolerance: float = TOLERANCE
) -> None:
    """Back-propagate the loss of the golden file; check the input's and the parameters' gradients.

    ``named_grads`` maps an official name to the gradient, after the backward pass.
    """
    sum(
        (out * normal(case['seed'] + 1 + i, out.shape)).sum() for i, out in enumerate(outs)
    ).backward()
    assert_probe(x.grad, case['grad_input'], tolerance)
    grads = {name: named_grads(name) for name in case['grad_params']}
    assert_grads(grads, case['grad_params'], tolerance)


def test_the_file_has_the_expected_cases():
    assert len(BACKBONES) == 4
    assert sum('grad_params' in CASES[name] for name in BACKBONES) == 2
    assert len(ATTENTIONS) == 12
    assert set(ROUTED) < set(ATTENTIONS)


def build_attention(args: dict, backend: str) -> BiLevelRoutingAttention:
    """The module that official arguments describe."""
    options = dict(args)
    assert options.pop('auto_pad')
    mode, side = options.pop('kv_downsample_mode', None), options.pop('kv_per_win', None)
    ratio = options.pop('kv_downsample_ratio', None)
    if mode is not None:
        size = dict(side=side) if side else dict(ratio=ratio)
        options['pooling'] = dict(type=POOLINGS[mode], **size)
    if options.pop('diff_routing', False):
        assert options.pop('soft_routing')
        options['routing'] = 'soft'
    return BiLevelRoutingAttention(
        options.pop('dim'),
        options.pop('num_heads'),
        options.pop('n_win'),
        options.pop('topk'),
        lce_kernel=options.pop('side_dwconv'),
        output_projection=options.pop('param_attention', 'qkvo') == 'qkvo',
        parametric_routing=options.pop('param_routing', False),
        backend=backend,
        **options,
    )


def assert_attention(name: str, backend: str, dtype: torch.dtype, tolerance: float) -> None:
    """Output and all gradients of an attention case."""
    case = CASES[name]
    attention = build_attention(case['args'], backend)
    attention.to(DEVICE if backend == 'triton' else 'cpu', dtype)
    ours = {
        official: BIFORMER.ours(f'block.attn.{official}').removeprefix('block.attn.')
        for official in case['params']
    }
    attention.load_state_dict(official_state_dict(case))
    x = normal(case['seed'], case['input_shape']).requires_grad_()
    out = attention(x.to(attention.qkv.weight))
    assert_probe(out.detach().cpu(), case['output'], tolerance)
    assert case['grad_params'].keys() == case['params'].keys()
    params = dict(attention.named_parameters())
    assert_gradients(
        case, x, [out.cpu()], lambda official: params[ours[official]].grad.cpu(), tolerance
    )


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
@pytest.mark.parametrize('name', ATTENTIONS)
def test_attention(name, backend):
    assert_attention(name, backend, torch.float64, TOLERANCE)


@pytest.mark.skipif(find_spec('triton') is None, reason='triton is not installed')
@pytest.mark.parametrize('name', ROUTED)
def test_attention_on_triton(name):
    # Triton has no float64. No affinity of these cases ties so nearly that float32 changes routes.
    assert_attention(name, 'triton', torch.float32, 5e-6)


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
@pytest.mark.parametrize('name', BACKBONES)
def test_backbone(name, backend):
    case = CASES[name]
    with_grad = 'grad_input' in case and (name, backend) not in FORWARD_ONLY
    with torch.device('meta'):
        backbone = BiFormer(
            case['arch'], partition_factor=case['n_win'], attention_backend=backend
        )
    assert sum(p.numel() for p in backbone.parameters()) == case['n_params']
    backbone.load_state_dict(official_state_dict(case), assign=True)
    backbone.eval()
    x = normal(case['seed'], case['input_shape']).requires_grad_(with_grad)
    with torch.set_grad_enabled(with_grad):
        outs = backbone(x)
    assert len(outs) == len(case['outputs'])
    for out, probe in zip(outs, case['outputs'], strict=True):
        assert_probe(out.detach(), probe)
    if with_grad:
        params = dict(backbone.named_parameters())
        assert params.keys() == {BIFORMER.ours(official) for official in case['grad_params']}
        assert_gradients(case, x, outs, lambda official: params[BIFORMER.ours(official)].grad)


def test_classifier():
    # The backbone under the official head: a BatchNorm, the mean over the map, a linear layer.
    case = CASES[CLASSIFIER]
    backbone = BiFormer(case['arch'], partition_factor=case['n_win'], out_indices=(3,)).double()
    weights = official_state_dict(case)
    backbone.norm3 = nn.Identity()  # the official head sees the map before any output norm
    backbone.load_state_dict(weights)
    norm, head = nn.BatchNorm2d(512), nn.Linear(512, 1000)
    classifier = nn.ModuleDict(dict(norm=norm, head=head)).double()
    classifier.load_state_dict({n: v for n, v in weights.items() if n.split('.')[0] in classifier})
    model = nn.ModuleList([backbone, classifier]).eval()
    assert sum(p.numel() for p in model.parameters()) == case['n_params']
    with torch.no_grad():
        (features,) = backbone(normal(case['seed'], case['input_shape']))
        logits = head(norm(features).flatten(2).mean(-1))
    assert_probe(logits, case['outputs'][0])
