"""Which architecture the tensors of a checkpoint belong to."""

import pytest
import torch

from mmbiformer import BiFormer
from mmbiformer.backbones import BiFormerSTL, SwinLayout
from mmbiformer.backbones.biformer import TOPKS
from mmbiformer.checkpoints import CheckpointError

OWN = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 2, 1))


def weights_of(arch, family=BiFormer, **options) -> dict[str, torch.Tensor]:
    with torch.device('meta'):
        return family(arch, **options).state_dict()


@pytest.mark.parametrize('arch', [*BiFormer.arch_settings, dict(OWN, topks=TOPKS)], ids=str)
def test_infers_a_name_or_the_own_architecture(arch):
    weights = weights_of(arch)
    assert BiFormer.infer_arch(weights) == arch
    assert BiFormer.infer_arch(dict(reversed(weights.items()))) == arch


def test_tells_which_stages_route():
    arch = BiFormer.infer_arch(weights_of(dict(OWN, topks=(4, None, None, 2))))
    assert arch == dict(OWN, topks=(1, None, None, 1))
    tiny = BiFormer.arch_settings['tiny']
    arch = BiFormer.infer_arch(weights_of(dict(tiny, topks=(1, 4, None, None))))
    assert arch == dict(tiny, topks=(1, 1, None, None))


def test_says_what_it_cannot_build():
    with pytest.raises(CheckpointError, match=r'of no BiFormer: none of its names is stages'):
        BiFormer.infer_arch({'layer1.weight': torch.ones(1)})
    three = {n: x for n, x in weights_of(OWN).items() if not n.startswith('stages.3.')}
    with pytest.raises(CheckpointError, match=r'no known BiFormer: arch\.embed_dims=\(32, 32'):
        BiFormer.infer_arch(three)


STL_ARCHS = [
    'tiny',
    dict(OWN, topks=TOPKS),
    dict(OWN, mlp_ratios=(3, 4, 4, 2), topks=(1, None, None, None)),
    dict(BiFormerSTL.arch_settings['tiny'], topks=(1, 1, 1, 1)),
]


@pytest.mark.parametrize('arch', STL_ARCHS, ids=str)
def test_stl(arch):
    weights = weights_of(arch, BiFormerSTL)
    assert BiFormerSTL.infer_arch(weights) == arch
    assert BiFormerSTL.infer_arch(dict(reversed(weights.items()))) == arch
    with pytest.raises(CheckpointError, match=r'of no BiFormer: none of its names is stages'):
        BiFormer.infer_arch(weights)


@pytest.mark.parametrize('downsampling', ['patches', 'overlapped'])
@pytest.mark.parametrize('arch', ['tiny', OWN, dict(OWN, mlp_ratios=(3, 3, 3, 3))], ids=str)
def test_swin_layout(arch, downsampling):
    weights = weights_of(arch, SwinLayout, attention='criss_cross', downsampling=downsampling)
    assert SwinLayout.infer_arch(weights) == arch


def test_stl_says_what_it_cannot_build():
    with pytest.raises(CheckpointError, match=r'of no BiFormerSTL: it lacks downsample_layers\.0'):
        BiFormerSTL.infer_arch({'layer1.weight': torch.ones(1)})
    weights = weights_of(OWN, BiFormerSTL)
    three = {n: x for n, x in weights.items() if not n.startswith('stages.3.')}
    with pytest.raises(CheckpointError, match=r'no known BiFormerSTL: arch\.embed_dims=\(32, 32'):
        BiFormerSTL.infer_arch(three)
