"""CloFormer: its architectures, errors and cost."""

import pytest
import torch
from backbones import SMALL_CLOFORMER as SMALL
from backbones import build
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer import CloFormer
from mmbiformer.checkpoints import CheckpointError
from mmbiformer.layers import CloAttention, DropPath


@pytest.mark.parametrize('arch', CloFormer.arch_settings)
def test_arch_names(arch):
    with torch.device('meta'):
        backbone = CloFormer(arch)
        assert len(CloFormer(arch.upper()).stages) == 4
    attentions = [x for x in backbone.modules() if isinstance(x, CloAttention)]
    heads = {'xxs': (4, 4, 8, 16), 'xs': (3, 6, 10, 22), 's': (4, 8, 14, 28)}[arch]
    stages = [0] * 2 + [1] * 2 + [2] * 6 + [3] * 2
    assert sorted(x.num_heads for x in attentions) == sorted(heads[stage] for stage in stages)
    for stage, blocks in enumerate(backbone.stages):
        for block in blocks:
            assert block.attn.num_heads == heads[stage]
            assert block.attn.kernel_sizes == ((3, 5, 7, 9)[stage],)
            assert block.attn.pool_size == (8, 4, 2, 1)[stage]
    assert {x.head_dim for x in attentions} == {8, 16} if arch == 'xxs' else {16}


# arXiv 2303.17803, table 1: 4.2, 7.2, 12.3 M parameters, 0.6, 1.1, 2.0 G multiply-adds. These
# are the products of linear layers and dense convolutions; the last number has all products.
@pytest.mark.parametrize(
    ('arch', 'mega_params', 'published', 'giga_macs'),
    [('xxs', 4.2, 0.6, 0.661), ('xs', 7.2, 1.1, 1.219), ('s', 12.3, 2.0, 2.170)],
)
def test_cost_at_224_is_the_published_one(arch, mega_params, published, giga_macs):
    backbone = CloFormer(arch, out_indices=(3,)).eval()
    dim = backbone.embed_dims[-1]
    # The classifier has a GroupNorm in place of the output norm, and a linear layer.
    num_params = sum(p.numel() for p in backbone.parameters()) + (dim + 1) * 1000
    assert round(num_params / 1e6, 1) == mega_params
    dense = [dim * 1000]
    for module in backbone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, 'groups', 1) == 1:
            module.register_forward_hook(
                lambda module, _, out: dense.append(out.numel() * module.weight[0].numel())
            )
    # PyTorch's counter knows no formula for the CPU's fused attention: use its plain products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        backbone(torch.randn(1, 3, 224, 224))
    assert round(sum(dense) / 1e9, 1) == published
    assert round((counter.get_total_flops() / 2 + dim * 1000) / 1e9, 3) == giga_macs


def test_drop_path_rate_grows_linearly_over_the_blocks():
    backbone = CloFormer('xxs', drop_path_rate=0.11)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert sorted(rates) == pytest.approx([0.01 * i for i in range(12)], abs=1e-6)
    strided = [layer.drop_path.drop_prob for layer in backbone.downsample_layers[1:]]
    assert strided == pytest.approx([0.01, 0.03, 0.09], abs=1e-6)


def test_recomputes_the_attention_of_strided_blocks():
    for with_cp in (False, True):
        backbone = build('CloFormer', with_cp=with_cp)
        calls = []
        backbone.downsample_layers[1].attn.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        sum(out.sum() for out in backbone(torch.randn(2, 3, 32, 32))).backward()
        assert len(calls) == 1 + with_cp
        (norm,) = [x for x in backbone.downsample_layers[1].modules() if type(x) is nn.BatchNorm2d]
        assert norm.num_batches_tracked == 1


def test_infers_a_name():
    for arch in CloFormer.arch_settings:
        with torch.device('meta'):
            weights = CloFormer(arch).state_dict()
        assert CloFormer.infer_arch(weights) == arch
        assert CloFormer.infer_arch(dict(reversed(weights.items()))) == arch


def test_says_what_it_cannot_infer():
    with pytest.raises(CheckpointError, match=r'of no CloFormer: none of its names is stages\.0'):
        CloFormer.infer_arch({'stages.0.0.mlp.fc2.bias': torch.ones(1)})
    with torch.device('meta'):
        weights = CloFormer(SMALL).state_dict()
    message = (
        r'no known CloFormer: its stages are \(16, 32, 48, 64\) channels .* \(2, 2, 3, 1\) blo'
    )
    with pytest.raises(CheckpointError, match=message):
        CloFormer.infer_arch(weights)


WRONG = {
    'name': (dict(arch='m'), r"arch='m' is unknown: choose from xxs, xs, s"),
    'letter of two names': (dict(arch='x'), r"arch='x' is unknown: choose from xxs, xs, s"),
    'no name': (dict(arch=3), r'arch=3 must be a name or a dict'),
    'arch without heads': (
        dict(arch=dict(embed_dims=(32,) * 4, depths=(2,) * 4)),
        r"arch has the keys \['depths', 'embed_dims'\]: it takes embed_dims, depths, conv_heads, "
        'global_heads$',
    ),
    'three depths': (
        dict(arch=dict(SMALL, depths=(2, 2, 2))),
        r'arch\.depths=\(2, 2, 2\) must have 4 entries',
    ),
    'no block beside the strided one': (
        dict(arch=dict(SMALL, depths=(1, 2, 2, 2))),
        r'arch\.depths=1 must be an integer from 2 on',
    ),
    'width': (
        dict(arch=dict(SMALL, embed_dims=(30, 32, 48, 64))),
        r'dim=30 does not divide into 4 heads, conv_heads=\(3,\) and global_heads=1: choose',
    ),
    'drop path 1': (dict(drop_path_rate=1.0), r'drop_path_rate=1\.0 must be in \[0, 1\)'),
    'outputs descend': (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\) must be ascending'),
    'frozen 5': (dict(frozen_stages=5), r'frozen_stages=5 must be an integer from -1 to 4'),
}


@pytest.mark.parametrize(('kwargs', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CloFormer(**{'arch': SMALL, **kwargs})
