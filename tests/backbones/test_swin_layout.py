"""Swin-T's layout: any attention fits its slot, and it leads to BiFormer step by step."""

from math import ceil

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer import BiFormer, rivals
from mmbiformer.backbones import BiFormerSTL, SwinLayout
from mmbiformer.backbones.slots import SLOTS, routing
from mmbiformer.layers import BiLevelRoutingAttention, DropPath, FullAttention

DIMS = (32, 64, 128, 256)
SMALL = dict(embed_dims=DIMS, depths=(1, 2, 2, 2))
each_slot = pytest.mark.parametrize('slot', SLOTS)


def randomise_norms(module: nn.Module) -> nn.Module:
    """Norms that are not all alike."""
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1.0, 0.1)
            nn.init.normal_(norm.bias, std=0.1)
    return module


@each_slot
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (33, 47), (64, 64)])
def test_any_attention_and_any_size(slot, height, width):
    torch.manual_seed(0)
    backbone = SwinLayout(SMALL, slot)
    outs = backbone(torch.randn(2, 3, height, width))
    assert [tuple(out.shape) for out in outs] == [
        (2, dim, ceil(height / stride), ceil(width / stride))
        for dim, stride in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]
    assert all(out.is_contiguous() and out.isfinite().all() for out in outs)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# Of the backbone with a classifier: a LayerNorm, which the last output has, and a linear layer.
# Swin-T has 28.3 M and BiFormer-STL 28.4 M as published.
@pytest.mark.parametrize(
    ('slot', 'mega_params'),
    {
        'sliding_window': 20.46,
        'shifted_window': 28.29,
        'spatially_separable': 31.22,
        'sequential_axial': 28.26,
        'criss_cross': 22.32,
        'cross_shaped_window': 28.31,
        'deformable': 28.32,
        'routing': 28.37,
    }.items(),
)
def test_parameters(slot, mega_params):
    with torch.device('meta'):
        backbone = SwinLayout('t', slot, out_indices=(3,))
    num_params = sum(p.numel() for p in backbone.parameters()) + 769 * 1000
    assert round(num_params / 1e6, 2) == mega_params


def test_every_slot_has_the_heads_of_its_paper():
    heads = {}
    for slot in SLOTS:
        with torch.device('meta'):
            backbone = SwinLayout('t', slot)
        heads[slot] = [
            [getattr(block.attn, 'num_heads', None) for block in stage[:2]]
            for stage in backbone.stages
        ]
    swin = [[num, num] for num in (3, 6, 12, 24)]
    assert heads['spatially_separable'] == heads['sequential_axial'] == swin
    assert heads['sliding_window'] == [[8, 8]] * 4
    assert heads['cross_shaped_window'] == [[num, num] for num in (2, 4, 8, 16)]
    assert heads['routing'] == [[3, 3], [6, 6], [12, 12], [8, 8]]
    assert [stage[1] for stage in heads['deformable'][2:]] == [12, 24]
    deformable = SwinLayout('t', 'deformable')
    assert [deformable.stages[i][1].attn.num_groups for i in (2, 3)] == [3, 6]
    shifted = SwinLayout('t', 'shifted_window')
    inner = [[block.attn.windows.w_msa.num_heads for block in x[:2]] for x in shifted.stages]
    assert inner == swin


def test_windows_shift_and_stripes_grow_as_in_their_papers():
    def each(slot, kind, read):
        """What is read of the attentions of a kind; None stands for others."""
        stages = SwinLayout('t', slot).stages
        return [[read(x.attn) if isinstance(x.attn, kind) else None for x in y] for y in stages]

    def shift(attention):
        return attention.windows.shift_size

    shifts = [[0, 3] * (depth // 2) for depth in (2, 2, 6, 2)]
    assert each('shifted_window', rivals.ShiftedWindowAttention, shift) == shifts
    # DAT-T, Xia et al., table 1: in the last stages deformable attention follows plain windows.
    shifts = [[0, 3], [0, 3], [0, None] * 3, [0, None]]
    assert each('deformable', rivals.ShiftedWindowAttention, shift) == shifts
    # Its tables have an entry for each offset of maps with a side of 14 and 7.
    tables = each('deformable', rivals.DeformableAttention, lambda x: tuple(x.bias_table.shape))
    assert tables == [[None] * 2, [None] * 2, [None, (12, 27, 27)] * 3, [None, (24, 13, 13)]]
    # CSWin-T, Dong et al., table 1.
    stripes = each('cross_shaped_window', rivals.CrossShapedWindowAttention, lambda x: x.stripe)
    assert stripes == [[1] * 2, [2] * 2, [7] * 6, [7] * 2]
    # Twins-SVT, Chu et al., section 3.2: by 8, 4, 2 and 1.
    sides = each(
        'spatially_separable',
        rivals.SubsampledAttention,
        lambda x: x.subsample and x.subsample.kernel_size,
    )
    assert sides == [[None, (8, 8)], [None, (4, 4)], [None, (2, 2)] * 3, [None, None]]


def test_blocks_take_the_attentions_of_an_entry_in_turn():
    backbone = SwinLayout(dict(SMALL, depths=(1, 2, 3, 4)), 'sequential_axial')
    axes = [[block.attn.axis for block in stage] for stage in backbone.stages]
    assert axes == [['row', 'column', 'row', 'column'][:depth] for depth in (1, 2, 3, 4)]


@each_slot
def test_on_a_cpu_blocks_are_fused_where_attentions_have_projections(slot, caplog):
    from mmbiformer.layers import fused_checks

    fused_checks.log_unfused.cache_clear()
    with caplog.at_level('INFO', logger='mmbiformer'), torch.no_grad():
        SwinLayout(SMALL, slot)(torch.randn(1, 3, 32, 32))
    unfused = [x.getMessage() for x in caplog.records if x.getMessage().startswith('BiFormerBlo')]
    kind = {'sliding_window': 'SlidingWindow', 'criss_cross': 'CrissCross'}.get(slot)
    assert [text.endswith(f'{kind}Attention with a forward of its own') for text in unfused] == (
        [True] if kind else []
    )


@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])
@each_slot
def test_fused_blocks_equal_their_modules_and_leave_the_input_alone(slot, grad, monkeypatch):
    from mmbiformer.layers import block

    torch.manual_seed(0)
    backbone = randomise_norms(SwinLayout(SMALL, slot).double())
    x = torch.randn(2, 9, 6, DIMS[2], dtype=torch.float64)
    for module in backbone.stages[2]:
        before = x.clone()
        with torch.set_grad_enabled(grad):
            out = module(x)
            assert torch.equal(x, before)
            with monkeypatch.context() as patch:
                patch.setattr(block, 'is_eager_on_cpu', lambda x: False)
                torch.testing.assert_close(out, module(x), rtol=0, atol=1e-11)


# A rounded query may be routed elsewhere: BiFormer's own tests have its autocast.
@pytest.mark.parametrize('slot', [slot for slot in SLOTS if slot != 'routing'])
@pytest.mark.parametrize(
    ('dtype', 'bound'), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=['bf16', 'fp16']
)
def test_autocast(slot, dtype, bound):
    torch.manual_seed(0)
    backbone = randomise_norms(SwinLayout(SMALL, slot)).eval()
    x = torch.randn(2, 3, 50, 70)
    expected = backbone(x)
    with torch.autocast('cpu', dtype):
        outs = backbone(x)
    for out, exact in zip(outs, expected, strict=True):
        assert 0 < (out.float() - exact).norm() / exact.norm() < bound
    sum(out.float().square().sum() for out in outs).backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


# mmdet's windows, which two slots have, take no empty batch.
@pytest.mark.parametrize('slot', sorted(SLOTS.keys() - {'shifted_window', 'deformable'}))
def test_empty_batch(slot):
    outs = SwinLayout(SMALL, slot)(torch.zeros(0, 3, 64, 96))
    assert [tuple(out.shape) for out in outs] == [
        (0, dim, 64 // stride, 96 // stride)
        for dim, stride in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]


@each_slot
def test_images_of_a_batch_do_not_touch(slot):
    torch.manual_seed(0)
    backbone = randomise_norms(SwinLayout(SMALL, slot).double()).eval()
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    with torch.no_grad():
        for both, one in zip(backbone(x), backbone(x[1:]), strict=True):
            torch.testing.assert_close(both[1:], one, rtol=0, atol=1e-11)


# arXiv 2103.14030 has 4.5 G multiply-adds for Swin-T, arXiv 2303.08810 4.6 G for BiFormer-STL.
@pytest.mark.parametrize(('slot', 'giga_macs'), [('shifted_window', 4.5), ('routing', 4.6)])
def test_cost_at_224_is_the_published_one(slot, giga_macs):
    with torch.device('meta'):
        backbone = SwinLayout('t', slot, out_indices=(3,)).eval()
        image = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(image)
    assert round(counter.get_total_flops() / 2e9, 1) == giga_macs


def test_patches_at_the_edge_are_filled_up_with_zeros():
    torch.manual_seed(0)
    stem = SwinLayout(SMALL).double().downsample_layers[0]
    x = torch.randn(1, 3, 6, 9, dtype=torch.float64)
    padded = torch.zeros(1, 3, 8, 12, dtype=torch.float64)
    padded[:, :, :6, :9] = x
    torch.testing.assert_close(stem(x), stem(padded), rtol=0, atol=0)
    assert stem(x).shape == (1, 32, 2, 3)


def test_layout_is_that_of_swin():
    # Its four maps in plain functions of PyTorch, with an attention that gives what it is given.
    torch.manual_seed(0)
    backbone = randomise_norms(SwinLayout(SMALL).double())
    for stage in backbone.stages:
        for block in stage:
            block.attn = nn.Identity()
    x = image = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    def norm(x, layer):
        return nn.functional.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-6)

    expected = []
    for i, (opening, blocks) in enumerate(
        zip(backbone.downsample_layers, backbone.stages, strict=True)
    ):
        conv, layer = (opening[0], opening[1]) if i == 0 else (opening[1], opening[0])
        if i > 0:
            x = norm(x, layer).permute(0, 3, 1, 2)
        x = nn.functional.conv2d(x, conv.weight, conv.bias, stride=4 if i == 0 else 2)
        x = x.permute(0, 2, 3, 1)
        if i == 0:
            x = norm(x, layer)
        for block in blocks:
            x = x + norm(x, block.norm1)
            first, last = block.mlp.fc1, block.mlp.fc2
            assert first.out_features == 4 * first.in_features
            hidden = nn.functional.gelu(norm(x, block.norm2) @ first.weight.T + first.bias)
            x = x + hidden @ last.weight.T + last.bias
        expected.append(norm(x, getattr(backbone, f'norm{i}')).permute(0, 3, 1, 2))
    for out, truth in zip(backbone(image), expected, strict=True):
        torch.testing.assert_close(out, truth, rtol=0, atol=1e-11)


def test_the_last_step_to_biformer_is_biformer():
    arch = dict(embed_dims=DIMS, depths=(1, 1, 2, 1))
    biformer = randomise_norms(BiFormer(arch).double()).eval()
    steps = dict(downsampling='overlapped', conv_position=True)
    layout = BiFormerSTL(dict(arch, mlp_ratios=(3,) * 4), **steps).double().eval()
    layout.load_state_dict(biformer.state_dict())
    x = torch.randn(1, 3, 50, 70, dtype=torch.float64)
    with torch.no_grad():
        for out, truth in zip(layout(x), biformer(x), strict=True):
            assert torch.equal(out, truth)


def test_stl_is_the_layout_with_routing():
    stl, layout = BiFormerSTL(SMALL).eval(), SwinLayout(SMALL, 'routing').eval()
    layout.load_state_dict(stl.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(stl(x), layout(x), strict=True))
    attentions = [stage[0].attn for stage in stl.stages]
    assert [type(attention) for attention in attentions] == [
        *[BiLevelRoutingAttention] * 3,
        FullAttention,
    ]
    assert [attention.topk for attention in attentions[:3]] == [1, 4, 16]
    assert {attention.partition_factor for attention in attentions[:3]} == {7}


def test_arguments_of_stl_reach_its_attentions():
    stl = BiFormerSTL(
        dict(SMALL, topks=(None, 2, 3, 4)), 2, 'masked', 'reference', drop_path_rate=0.3
    )
    attentions = [stage[0].attn for stage in stl.stages]
    assert isinstance(attentions[0], FullAttention)
    assert [(x.topk, x.partition_factor, x.padding, x.backend) for x in attentions[1:]] == [
        (topk, 2, 'masked', 'reference') for topk in (2, 3, 4)
    ]
    rates = [module.drop_prob for module in stl.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.05 * i for i in range(7)], abs=1e-6)


@pytest.mark.parametrize('frozen_stages', [0, 2])
def test_options_of_every_backbone(frozen_stages):
    backbone = SwinLayout(
        SMALL,
        downsampling='overlapped',
        out_indices=(0, 2),
        frozen_stages=frozen_stages,
        norm_eval=True,
        with_cp=True,
    ).train()
    assert len(backbone.stages) == len(backbone.downsample_layers) == 3
    prefixes = ['downsample_layers.0.']
    for i in range(frozen_stages):
        prefixes += [f'downsample_layers.{i}.', f'stages.{i}.', f'norm{i}.']
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(prefixes)), name
    assert not any(x.training for x in backbone.modules() if isinstance(x, nn.BatchNorm2d))
    outs = backbone(torch.randn(2, 3, 32, 32))
    assert len(outs) == 2
    outs[1].sum().backward()
    assert backbone.stages[2][1].mlp.fc1.weight.grad is not None


@each_slot
def test_initial_weights(slot):
    backbone = SwinLayout(SMALL, slot)
    backbone.init_weights()
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    for name, parameter in backbone.named_parameters():
        if name.endswith(('table', 'embedding')):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2)


WRONG = {
    'slot': (dict(attention='window'), r"attention='window' is unknown: choose from sliding_win"),
    'entries': (
        dict(attention=routing()[:3]),
        r'must be a name or a list of 4 entries, one for each stage$',
    ),
    'one for all': (
        dict(attention=routing()[0]),
        r"attention=\{'type': .*must be a name or a lis",
    ),
    'none': (dict(attention=None), r'attention=None must be a name or a list of 4 entries'),
    'numbers': (dict(attention=[5] * 4), r'attention\[0\]=5 must be the config of an attention'),
    'no type': (
        dict(attention=[dict(head_dim=7)] * 4),
        r"attention\[0\]=\(\{'head_dim': 7\},\) must be the .*, or several, with a type each$",
    ),
    'head width': (
        dict(attention=[dict(routing()[0], head_dim=0)] * 4),
        r'head_dim=0 must be an integer from 1 on$',
    ),
    'no head width': (
        dict(attention=[dict(routing()[0], head_dim='a')] * 4),
        r"head_dim='a' must be an integer from 1 on$",
    ),
    'entry': (
        dict(attention=['a', *routing()[:3]]),
        r"attention\[0\]='a' must be the config of an attention, or several, with a type each$",
    ),
    'empty': (dict(attention=[[], *routing()[:3]]), r'attention\[0\]=\[\] must be the config'),
    'width': (
        dict(arch=dict(SMALL, embed_dims=(48,) * 4), attention='routing'),
        r'arch\.embed_dims has 48: it must be a multiple of head_dim=32 of mmbiformer\.BiLevel',
    ),
    'name': (dict(arch='s'), r"arch='s' is unknown: choose from tiny"),
    'key': (
        dict(arch=dict(SMALL, topks=(1, 1, 1, 1))),
        r"arch has the keys \['depths', 'embed_dims', 'topks'\]: it takes embed_dims, depths and, "
        'optionally, mlp_ratios$',
    ),
    'ratio': (dict(arch=dict(SMALL, mlp_ratios=(4, 4, 4, None))), r'arch\.mlp_ratios=None must'),
    'downsampling': (
        dict(downsampling='pool'),
        r"downsampling='pool' is unknown: choose from patches, overlapped",
    ),
    'drop path': (dict(drop_path_rate=1.0), r'drop_path_rate=1\.0 must be in \[0, 1\)'),
}


@pytest.mark.parametrize(('kwargs', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SwinLayout(**{'arch': SMALL, **kwargs})


def test_more_regions_than_there_are_is_named():
    with pytest.raises(ValueError, match=r'topk=16 must be .* 9 regions of partition_factor=3'):
        BiFormerSTL(SMALL, partition_factor=3)
