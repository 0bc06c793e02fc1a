"""Which architecture the tensors of a checkpoint belong to."""

import pytest
import torch

from mmbiformer import BiFormer
from mmbiformer.backbones.biformer import TOPKS
from mmbiformer.checkpoints import CheckpointError

OWN = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 2, 1))


def weights_of(arch) -> dict[str, torch.Tensor]:
    with torch.device('meta'):
        return BiFormer(arch).state_dict()


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
