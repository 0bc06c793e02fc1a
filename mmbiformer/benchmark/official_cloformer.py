"""The yardstick of CloFormer: the composition of PyTorch's modules that its paper describes.

A benchmark-only twin on contiguous (B, C, H, W) maps, written from a description of the official
code, not from the code: linear layers are 1x1 convolutions, and depthwise convolutions have
PyTorch's own backward pass. Outputs and gradients equal the package's own.
"""

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.backbones import CloFormer
from mmbiformer.layers import CloAttention, CloBlock, StridedCloBlock
from mmbiformer.layers.clo_block import ConvMLP

from .official_style import forward_stages


def official_cloformer(model: CloFormer) -> nn.Module:
    """A copy of a CloFormer in the official style; names and values of its state dict stay."""
    twin = copy.deepcopy(model)
    styles = {
        CloFormer: _Backbone,
        CloBlock: _Block,
        StridedCloBlock: _StridedBlock,
        ConvMLP: _ConvMLP,
        CloAttention: _Attention,
        nn.Linear: _Pointwise,
    }
    for module in twin.modules():
        # Only the forward differs: the class is swapped, parameters and options stay.
        module.__class__ = styles.get(type(module), type(module))
    return twin


class _Pointwise(nn.Linear):
    """A linear layer as a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        return F.conv2d(x, self.weight[..., None, None], self.bias)


class _Attention(CloAttention):
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        scale = self.head_dim**-0.5
        outs = []
        for qkv, conv, gate in zip(self.qkvs, self.convs, self.gates, strict=True):
            q, k, v = conv(qkv(x)).chunk(3, dim=1)
            outs.append(torch.tanh(gate(q * k) * scale) * v)
        if self.global_heads:
            outs.append(self._attend_to_pooled(x, scale))
        return self.proj(torch.cat(outs, dim=1))

    def _attend_to_pooled(self, x: Tensor, scale: float) -> Tensor:
        heads = 'b (n d) h w -> b n (h w) d'
        q = rearrange(self.global_q(x), heads, d=self.head_dim)
        pooled = F.avg_pool2d(x, self.pool_size, ceil_mode=True) if self.pool_size > 1 else x
        k, v = self.global_kv(pooled).chunk(2, dim=1)
        k, v = rearrange(k, heads, d=self.head_dim), rearrange(v, heads, d=self.head_dim)
        out = torch.softmax(scale * q @ k.transpose(-1, -2), dim=-1) @ v
        return rearrange(out, 'b n (h w) d -> b (n d) h w', h=x.shape[2])


class _ConvMLP(ConvMLP):
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, ceil(H / stride), ceil(W / stride))."""
        return self.fc2(self.conv(self.act(self.fc1(x))))


class _Block(CloBlock):
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _StridedBlock(StridedCloBlock):
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, ceil(H / 2), ceil(W / 2))."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return self.project(self.downsample(x)) + self.drop_path(self.mlp(self.norm2(x)))


class _Backbone(CloFormer):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`CloFormer.forward`."""
        return forward_stages(self, x)
