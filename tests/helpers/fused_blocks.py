"""Blocks, fused and by their modules."""

import pytest
import torch
from torch import nn

from mmbiformer.layers import (
    BiFormerBlock,
    BiLevelRoutingAttention,
    FullAttention,
    block,
    depthwise,
)

DIM = 64


def make_block(attention='routed', drop_path=0.0, dtype=torch.float64) -> BiFormerBlock:
    """With every parameter drawn from a normal distribution."""
    torch.manual_seed(0)
    if attention == 'routed':
        module = BiLevelRoutingAttention(DIM, 2, 3, 2, backend='chunked')
    else:
        module = FullAttention(DIM)
    made = BiFormerBlock(DIM, module, drop_path).to(dtype)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return made


def results(module: BiFormerBlock, x: torch.Tensor, call=None) -> list[torch.Tensor]:
    """The output and the gradients of the input and of every parameter; dropping from a seed."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    out = (call or module)(x)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad(out, [x, *module.parameters()], grad_out.to(x.dtype))
    return [out.detach(), *grads]


def unfuse(patch: pytest.MonkeyPatch) -> None:
    """Have the modules run one by one, and PyTorch's own convolution."""
    patch.setattr(block, 'is_eager_on_cpu', lambda x: False)
    patch.setattr(depthwise, 'is_eager_on_cpu', lambda x: False)


def plain(monkeypatch, *args) -> list[torch.Tensor]:
    """As :func:`results`, of the modules."""
    with monkeypatch.context() as patch:
        unfuse(patch)
        return results(*args)


def is_fused(module: BiFormerBlock, x: torch.Tensor) -> bool:
    return block.is_eager_on_cpu(x) and module._fusing_problem(x) is None
