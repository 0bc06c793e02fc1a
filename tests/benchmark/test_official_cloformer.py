"""The yardstick of CloFormer computes what the package computes: only its style is measured."""

import pytest
import torch
from backbones import build, gradients

from mmbiformer.benchmark.official_cloformer import official_cloformer


@pytest.mark.parametrize('size', [(96, 96), (57, 16), (1, 1)], ids=str)
def test_twin_equals_the_backbone(size) -> None:
    backbone = build('CloFormer').double().eval()
    twin = official_cloformer(backbone)
    assert twin.state_dict().keys() == backbone.state_dict().keys()
    ours = {type(module) for module in backbone.modules()}
    twins = {type(module) for module in twin.modules()}
    assert {kind.__name__ for kind in ours - twins} == {
        *('CloFormer', 'CloBlock', 'StridedCloBlock', 'ConvMLP', 'CloAttention', 'Linear')
    }
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    for out, expected in zip(twin(images), backbone(images), strict=True):
        assert (out - expected).abs().max() <= 1e-9 * expected.abs().max()
    truth = gradients(backbone, images)
    for name, grad in gradients(twin, images).items():
        # Of one token alone some gradients are zero but for rounding.
        bound = 1e-9 * max(truth[name].abs().max(), 1e-3)
        assert (grad - truth[name]).abs().max() <= bound, name
