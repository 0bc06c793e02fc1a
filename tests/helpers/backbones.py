"""A small backbone of each family, and what tests of backbones measure."""

import torch
from torch import nn

from mmbiformer import BiFormer, BiFormerSTL, CloFormer

SMALL_BIFORMER = dict(embed_dims=(32, 64, 96, 128), depths=(1, 1, 2, 1), topks=(1, 2, 4, None))
SMALL_CLOFORMER = dict(
    embed_dims=(16, 32, 48, 64),
    depths=(2, 2, 3, 1),
    conv_heads=(3, 2, 2, 1),
    global_heads=(1, 2, 2, 3),
)
# Class, and arguments of a small backbone.
FAMILIES = {
    'BiFormer': (BiFormer, dict(arch=SMALL_BIFORMER, partition_factor=3)),
    'BiFormer masked': (
        BiFormer,
        dict(arch=SMALL_BIFORMER, partition_factor=3, padding='masked'),
    ),
    'BiFormerSTL': (BiFormerSTL, dict(arch=SMALL_BIFORMER, partition_factor=3)),
    'CloFormer': (CloFormer, dict(arch=SMALL_CLOFORMER)),
}


def build(family: str = 'BiFormer', seed: int = 0, **options) -> nn.Module:
    """A small backbone whose norms and biases are not all alike."""
    torch.manual_seed(seed)
    kind, defaults = FAMILIES[family]
    backbone = kind(**{**defaults, **options})
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, std=0.1)
    return backbone


def gradients(backbone: nn.Module, x: torch.Tensor, outs=None) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every output value differently."""
    backbone.zero_grad()
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for out in backbone(x) if outs is None else outs:
        weight = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        loss = loss + (out * weight.to(out.dtype)).sum()
    loss.backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def assert_all_close(results, expected, **tolerance):
    results = list(results)
    assert results, 'nothing to compare'
    for result, truth in zip(results, expected, strict=True):
        torch.testing.assert_close(result, truth, **tolerance)
