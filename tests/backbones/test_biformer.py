"""BiFormer: its architectures, its own options, errors, and its cost."""

import pytest
import torch
from backbones import SMALL_BIFORMER as SMALL
from backbones import assert_all_close, build, gradients
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer import BiFormer
from mmbiformer.layers import (
    BiLevelRoutingAttention,
    DropPath,
    FullAttention,
    block,
    depthwise,
)


@pytest.mark.parametrize('padding', ['official', 'masked'])
@pytest.mark.parametrize(
    'size', [(1, 1), (1, 7), (33, 65), (31, 4), (64, 96), (97, 3), (2, 129)], ids=str
)
def test_any_input_size_with_the_reference(size, padding):
    backbone = build(padding=padding, attention_backend='reference').double()
    default = build(padding=padding).double()
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    backbone.eval(), default.eval()
    assert_all_close(backbone(x), default(x), rtol=0, atol=1e-11)
    grads, expected = gradients(backbone, x), gradients(default, x)
    assert_all_close(grads.values(), expected.values(), rtol=0, atol=1e-10)


@pytest.mark.parametrize('is_training', [True, False], ids=['training', 'inference'])
@pytest.mark.parametrize('mode', ['float32', 'bfloat16 by autocast', 'weights in bfloat16'])
def test_every_block_is_fused_on_cpus(monkeypatch, mode, is_training):
    problems = []
    for module in (block, depthwise):
        monkeypatch.setattr(module, 'log_unfused', lambda *args: problems.append(args))
    backbone, x = build(drop_path_rate=0.5).train(is_training), torch.rand(2, 3, 50, 70)
    if mode.startswith('weights'):
        backbone, x = backbone.bfloat16(), x.bfloat16()
    with (
        torch.autocast('cpu', torch.bfloat16, enabled='autocast' in mode),
        torch.set_grad_enabled(is_training),
    ):
        backbone(x)
        assert not problems
        backbone.stages[1][0].norm1 = nn.Identity()  # somebody's own
        backbone(x)
    assert [what for what, _ in problems] == ['BiFormerBlock']


def test_drop_path_rate_grows_linearly_over_the_blocks():
    backbone = BiFormer('t', drop_path_rate=0.26)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.02 * i for i in range(14)], abs=1e-6)
    # A backbone without the last stages drops as often in those that it has.
    shallow = BiFormer('t', drop_path_rate=0.26, out_indices=(0, 1))
    rates = [module.drop_prob for module in shallow.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.02, 0.04, 0.06], abs=1e-6)


def test_initial_weights():
    backbone = BiFormer('t')
    backbone.init_weights()
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()


@pytest.mark.parametrize(
    ('names', 'embed_dims', 'depths'),
    [
        (('t', 'T', 'tiny', 'Tiny'), (64, 128, 256, 512), (2, 2, 8, 2)),
        (('s', 'small'), (64, 128, 256, 512), (4, 4, 18, 4)),
        (('b', 'base'), (96, 192, 384, 768), (4, 4, 18, 4)),
    ],
    ids=['tiny', 'small', 'base'],
)
def test_arch_names(names, embed_dims, depths):
    for name in names:
        with torch.device('meta'):
            backbone = BiFormer(name)
        assert tuple(len(stage) for stage in backbone.stages) == depths
        assert tuple(backbone.embed_dims) == embed_dims
        for i, topk in enumerate((1, 4, 16)):
            attention = backbone.stages[i][0].attn
            assert isinstance(attention, BiLevelRoutingAttention)
            assert attention.topk == topk
            assert attention.partition_factor == 7
            assert attention.num_heads == embed_dims[i] // 32
            assert attention.padding == 'official'
            assert attention.backend == 'auto'
        assert isinstance(backbone.stages[3][0].attn, FullAttention)
        assert backbone.stages[3][0].attn.num_heads == 8


def test_arch_dict():
    backbone = BiFormer(dict(embed_dims=[32, 64, 96, 128], depths=[1, 2, 1, 1]))
    assert [len(stage) for stage in backbone.stages] == [1, 2, 1, 1]
    assert backbone.stages[2][0].attn.topk == 16
    backbone = BiFormer(dict(SMALL, topks=(None, 3, None, 5)), padding='masked')
    attentions = [stage[0].attn for stage in backbone.stages]
    assert [getattr(attention, 'topk', None) for attention in attentions] == [None, 3, None, 5]
    assert attentions[1].padding == 'masked'


WRONG = {
    'name': (dict(arch='l'), r"arch='l' is unknown: choose from tiny, small, base"),
    'no name': (dict(arch=3), r'arch=3 must be a name or a dict'),
    'arch without depths': (
        dict(arch=dict(embed_dims=(32,) * 4)),
        r"arch has the keys \['embed_dims'\]: it takes embed_dims, depths and, optionally, topks",
    ),
    'arch with more': (dict(arch=dict(SMALL, dims=1)), r"keys \['depths', 'dims', .*it takes"),
    'three depths': (
        dict(arch=dict(SMALL, depths=(1, 1, 1))),
        r'arch\.depths=\(1, 1, 1\) must have 4 entries',
    ),
    'width': (
        dict(arch=dict(SMALL, embed_dims=(32, 64, 100, 128))),
        r'arch\.embed_dims has 100: it must be a multiple of 32',
    ),
    'depth 0': (
        dict(arch=dict(SMALL, depths=(1, 0, 1, 1))),
        r'arch\.depths=0 must be an integer from 1 on',
    ),
    'topk 0': (dict(arch=dict(SMALL, topks=(0, 1, 1, 1))), r'arch\.topks=0 must be an integer'),
    'topk over S * S': (
        dict(partition_factor=3, arch='t'),
        r'topks\[2\]=16 exceeds the 9 regions of partition_factor=3: lower topks in arch or raise',
    ),
    'partition factor': (dict(partition_factor=0), r'partition_factor=0 must be .* from 1 on'),
    'fraction': (dict(partition_factor=3.5), r'partition_factor=3\.5 must be an integer'),
    'width that is no list': (
        dict(arch=dict(SMALL, embed_dims=32)),
        r'arch\.embed_dims=32 must be a list$',
    ),
    'init_cfg': (
        dict(init_cfg='x.pth'),
        r"init_cfg='x\.pth' must be like dict\(type='Pretrained'",
    ),
    'init_cfg without type': (
        dict(init_cfg=[dict(checkpoint='x.pth')]),
        r"init_cfg=\[\{'checkpoint': 'x\.pth'\}\] must be like dict\(type=",
    ),
    'one output': (dict(out_indices=3), r'out_indices=3 must be a list$'),
    'no outputs': (dict(out_indices=()), r'out_indices=\(\) must be ascending stage numbers'),
    'outputs descend': (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\) must be ascending'),
    'outputs repeat': (dict(out_indices=(1, 1)), r'out_indices=\(1, 1\) must be ascending'),
    'output 4': (dict(out_indices=(3, 4)), r'out_indices=\(3, 4\) must .* from 0 to 3'),
    'drop path high': (dict(drop_path_rate='high'), r"drop_path_rate='high' must be in \[0, 1\)"),
    'drop path 1': (dict(drop_path_rate=1.0), r'drop_path_rate=1\.0 must be in \[0, 1\)'),
    'drop path < 0': (dict(drop_path_rate=-0.1), r'drop_path_rate=-0\.1 must be in \[0, 1\)'),
    'frozen 5': (dict(frozen_stages=5), r'frozen_stages=5 must be an integer from -1 to 4'),
    'frozen -2': (dict(frozen_stages=-2), r'frozen_stages=-2 must be an integer from -1 to 4'),
    'padding': (dict(padding='same'), r"padding='same' is unknown: choose from official, masked"),
    'backend': (
        dict(attention_backend='cuda'),
        r"attention_backend='cuda' is unknown: choose from auto, reference, chunked, cpp, tri",
    ),
}


@pytest.mark.parametrize(('kwargs', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BiFormer(**{'arch': SMALL, **kwargs})


# arXiv 2303.08810: 2.2, 4.5 and 9.8 G multiply-adds, 13.1, 25.5 and 56.8 M parameters.
@pytest.mark.parametrize(
    ('arch', 'giga_macs', 'mega_params'),
    [('t', 2.216, 13.1), ('s', 4.464, 25.5), ('b', 9.759, 56.8)],
)
def test_cost_at_224_is_the_published_one(arch, giga_macs, mega_params):
    backbone = BiFormer(arch, partition_factor=7, out_indices=(3,)).eval()
    dim = backbone.embed_dims[-1]
    # The classifier has a BatchNorm in place of the output norm, and a linear layer.
    num_params = sum(p.numel() for p in backbone.parameters()) + (dim + 1) * 1000
    assert round(num_params / 1e6, 1) == mega_params
    # PyTorch's counter knows no formula for the CPU's fused attention: use its plain products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        backbone(torch.randn(1, 3, 224, 224))
    macs = counter.get_total_flops() / 2 + dim * 1000
    assert round(macs / 1e9, 3) == giga_macs
