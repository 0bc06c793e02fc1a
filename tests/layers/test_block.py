"""The block's residual branches and stochastic depth."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmbiformer.layers import LAYER_NORM_EPS, BiFormerBlock, DropPath


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def test_block_is_position_then_attention_then_mlp():
    torch.manual_seed(0)
    block = BiFormerBlock(8, Double()).double()
    x = torch.randn(2, 5, 4, 8, dtype=torch.float64)

    def norm(x, layer):
        return F.layer_norm(x, (8,), layer.weight, layer.bias, 1e-6)

    for layer in (block.norm1, block.norm2):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    y = x.permute(0, 3, 1, 2)
    conv = block.conv_position
    y = y + F.conv2d(y, conv.weight, conv.bias, padding=1, groups=8)
    y = y.permute(0, 2, 3, 1)
    y = y + 2 * norm(y, block.norm1)
    first, second = block.mlp.fc1, block.mlp.fc2
    hidden = F.gelu(F.linear(norm(y, block.norm2), first.weight, first.bias))
    y = y + F.linear(hidden, second.weight, second.bias)
    torch.testing.assert_close(block(x), y, rtol=0, atol=1e-13)
    assert first.out_features == 24
    assert LAYER_NORM_EPS == 1e-6


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop_path = DropPath(0.25)
    x = torch.rand(4000, 2, 3) + 1
    out = drop_path(x)
    dropped = (out == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    torch.testing.assert_close(out[~dropped[:, 0]], x[~dropped[:, 0]] / 0.75)
    assert dropped[:, 0].float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert out.mean().item() == pytest.approx(x.mean().item(), rel=0.03)


def test_drop_path_is_off_in_eval_mode_and_at_rate_0():
    x = torch.rand(8, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_both_branches_of_a_block_drop():
    torch.manual_seed(0)
    block = BiFormerBlock(8, Double(), drop_path=0.5)
    assert isinstance(block.drop_path, DropPath)
    block.drop_path.drop_prob = 1 - 1e-12  # all is dropped: what is left is the position encoding
    x = torch.randn(4, 3, 3, 8)
    conv = block.conv_position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(block(x), x + conv)
