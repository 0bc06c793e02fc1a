"""The yardstick computes what the package computes, so that only its style is measured."""

import pytest
import torch
from golden import assert_probe, golden_cases, normal, official_state_dict
from mmengine.registry import DefaultScope
from torch import nn

from mmbiformer import BiFormer
from mmbiformer.benchmark import official_style
from mmbiformer.benchmark.official_style import official_style_attention
from mmbiformer.necks import AttentionNeck
from mmbiformer.ops import routed_attention
from mmbiformer.ops.regions import to_regions

ARCH = dict(embed_dims=(32, 64, 96, 128), depths=(1, 1, 2, 1), topks=(1, 2, 4, None))


def build(**options) -> BiFormer:
    torch.manual_seed(0)
    # In eval mode, as batch statistics would make the gradient of a bias before them zero.
    backbone = BiFormer(ARCH, partition_factor=3, **options).double().eval()
    for parameter in backbone.parameters():
        if parameter.ndim == 1:  # norms and biases, so that padding carries a bias
            nn.init.normal_(parameter, std=0.2)
    return backbone


def outputs_and_gradients(backbone: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    images = images.clone().requires_grad_()
    outs = backbone(images)
    generator = torch.Generator().manual_seed(1)
    sum(
        (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum() for out in outs
    ).backward()
    results = {f'output {i}': out.detach() for i, out in enumerate(outs)}
    results['images'] = images.grad
    results.update((name, p.grad) for name, p in backbone.named_parameters())
    return results


# Regions that are full, partly padding, and padding alone (a map of 4 columns has 3 x 2).
@pytest.mark.parametrize(('height', 'width'), [(96, 96), (70, 100), (57, 16)])
def test_twin_equals_the_backbone(height, width) -> None:
    backbone = build()
    twin = official_style(backbone)
    assert twin.state_dict().keys() == backbone.state_dict().keys()
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = outputs_and_gradients(backbone, images)
    results = outputs_and_gradients(twin, images)
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert (results[name] - value).abs().max() <= 1e-9 * value.abs().max(), name


@pytest.mark.parametrize('inside', [False, True])
def test_twin_of_plugged_in_attention(inside) -> None:
    torch.manual_seed(0)
    attention = dict(
        type='mmbiformer.BiLevelRoutingAttention',
        num_heads=2,
        partition_factor=3,
        topk=2,
        lce_kernel=3,
    )
    neck = dict(type='YOLOXPAFPN', in_channels=[8, 16, 32], out_channels=8, num_csp_blocks=1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = AttentionNeck(neck, (0, 2), attention, inside=inside).double().eval()
    twin = official_style(neck)
    maps = [torch.randn(1, 8 * 2**i, 20 // 2**i, 12 // 2**i).double() for i in range(3)]
    for out, expected in zip(twin(maps), neck(maps), strict=True):
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    with pytest.raises(AssertionError, match='not close'):
        nn.init.zeros_(twin.attentions[0].proj.weight)
        torch.testing.assert_close(twin(maps)[0], neck(maps)[0])


def test_twin_leaves_the_backbone_as_it_was() -> None:
    backbone = build()
    images = torch.randn(1, 3, 40, 40, dtype=torch.float64)
    before = backbone(images)
    twin = official_style(backbone)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert type(backbone) is BiFormer
    assert all(torch.equal(a, b) for a, b in zip(backbone(images), before, strict=True))


def test_twin_gives_the_official_outputs() -> None:
    case = golden_cases()['small_detection_S16_not_divisible']
    with torch.device('meta'):
        backbone = BiFormer(case['arch'], partition_factor=case['n_win'])
    twin = official_style(backbone)
    twin.load_state_dict(official_state_dict(case), assign=True)
    twin.eval()
    with torch.no_grad():
        outs = twin(normal(case['seed'], case['input_shape']))
    for out, probe in zip(outs, case['outputs'], strict=True):
        assert_probe(out, probe)


def test_attention_equals_the_reference_op() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 8, 64, dtype=torch.float64)
    indices = torch.rand(2, 4, 4).argsort(-1)[..., :3]
    expected = routed_attention(
        q, k, v, indices, partition_factor=2, num_heads=2, scale=0.3, backend='reference'
    )
    kv = to_regions(torch.cat([k, v], -1), 2)
    out = official_style_attention(to_regions(q, 2), kv, indices, num_heads=2, scale=0.3)
    torch.testing.assert_close(out, to_regions(expected, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(with_cp=True), 'with_cp'), (dict(padding='masked'), "padding='masked'")],
)
def test_options_that_the_official_code_lacks(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        official_style(build(**options))
