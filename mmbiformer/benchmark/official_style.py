"""The yardstick: BiFormer computed in the style of the official implementation.

A benchmark-only twin, written from a description of what the official code does, not from the
code: the map is zero-padded before the projection, so that padding is projected, averaged,
attended from, convolved and projected again; keys and values are gathered together, k-fold,
through an expanded view; logits and softmax are materialised; the local context is a convolution
of a contiguous (B, C, H, W) copy of the values; every block comes in and leaves as (B, C, H, W)
and is permuted in between. Outputs and gradients equal the package's own.

Shape letters: B batch, S partition factor, R = S * S regions, T tokens per region, K routed
regions, N heads, D head dim, C channels.
"""

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.backbones import BiFormer, StagedBackbone
from mmbiformer.layers import BiFormerBlock, BiLevelRoutingAttention, FullAttention
from mmbiformer.ops.any_size import from_regions
from mmbiformer.ops.regions import to_regions


def official_style(model: nn.Module) -> nn.Module:
    """A copy of a model whose routed attention, and BiFormer as a whole, has the official style.

    Args:
        model (nn.Module): A BiFormer, or what has routed attention plugged in; with
            ``padding='official'`` and without ``with_cp``.

    Returns:
        nn.Module: Computes the same; names and values of its state dict are the model's.

    Raises:
        ValueError: If the model has an option that the official code lacks.
    """
    if getattr(model, 'with_cp', False):
        raise ValueError('official_style knows no with_cp: build the backbone without it')
    twin = copy.deepcopy(model)
    for module in twin.modules():
        # Only the forward differs: the class is swapped, parameters and options stay.
        if isinstance(module, BiLevelRoutingAttention):
            if module.padding != 'official':
                raise ValueError(
                    f"official_style knows no padding='{module.padding}': "
                    "build the backbone with padding='official'"
                )
            module.__class__ = _RoutingAttention
        elif isinstance(module, FullAttention):
            module.__class__ = _FullAttention
        elif isinstance(module, BiFormerBlock):
            module.__class__ = _Block
        elif isinstance(module, BiFormer):
            module.__class__ = _Backbone
    return twin


def official_style_attention(
    q: Tensor, kv: Tensor, indices: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Token-to-token attention: one gather of keys and values, a materialised softmax.

    Args:
        q (Tensor): Queries, (B, R, T, C).
        kv (Tensor): Keys and values side by side, (B, R, T, 2 * C).
        indices (Tensor): int64, (B, R, K).
        num_heads (int): N.
        scale (float): Softmax scale.

    Returns:
        Tensor: (B, R, T, C).
    """
    batch, regions, tokens, channels = kv.shape
    topk = indices.shape[-1]
    # The backward of this gather fills zeros of the expanded size: R times the keys and values.
    gathered = torch.gather(
        kv.unsqueeze(1).expand(-1, regions, -1, -1, -1),
        dim=2,
        index=indices.view(batch, regions, topk, 1, 1).expand(-1, -1, -1, tokens, channels),
    )
    k, v = gathered.chunk(2, dim=-1)
    q = rearrange(q, 'b r t (n d) -> (b r) n t d', n=num_heads)
    k = rearrange(k, 'b r k t (n d) -> (b r) n d (k t)', n=num_heads)
    v = rearrange(v, 'b r k t (n d) -> (b r) n (k t) d', n=num_heads)
    out = torch.softmax((q * scale) @ k, dim=-1) @ v
    return rearrange(out, '(b r) n t d -> b r t (n d)', b=batch)


class _RoutingAttention(BiLevelRoutingAttention):
    """Bi-level routing attention over the padded map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        height, width, channels = x.shape[1:]
        s = self.partition_factor
        x = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
        h = x.shape[1] // s
        q, kv = self.qkv(to_regions(x, s)).split([channels, 2 * channels], dim=-1)
        k, v = kv.chunk(2, dim=-1)

        affinity = (q.detach().mean(2) * self.scale) @ k.detach().mean(2).transpose(1, 2)
        indices = affinity.topk(self.topk, dim=-1).indices
        v = rearrange(v, 'b (i j) (h w) c -> b c (i h) (j w)', i=s, h=h).contiguous()
        local_context = rearrange(self.lce(v), 'b c h w -> b h w c')

        out = official_style_attention(q, kv, indices, self.num_heads, self.scale)
        out = from_regions(out, *x.shape[1:3], s)
        return self.proj(out + local_context)[:, :height, :width].contiguous()


class _FullAttention(FullAttention):
    """Attention of all tokens to all tokens with a materialised softmax."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        height, channels = x.shape[1], x.shape[-1]
        q, k, v = rearrange(
            self.qkv(x), 'b h w (three n d) -> three b n (h w) d', three=3, n=self.num_heads
        )
        scale = (channels // self.num_heads) ** -0.5
        out = torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v
        out = rearrange(out, 'b n (h w) d -> b h w (n d)', h=height)
        local_context = self.lce(rearrange(x, 'b h w c -> b c h w').contiguous())
        return self.proj(out + rearrange(local_context, 'b c h w -> b h w c'))


class _Block(BiFormerBlock):
    """Position encoding on (B, C, H, W), the rest on (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        x = x + self.conv_position(x)
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        # The next convolution copies this to the layout that it computes in.
        return x.permute(0, 3, 1, 2)


class _Backbone(BiFormer):
    """The backbone on (B, C, H, W) maps."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`BiFormer.forward`."""
        return forward_stages(self, x)


def forward_stages(backbone: StagedBackbone, x: Tensor) -> tuple[Tensor, ...]:
    """The outputs of a backbone whose stages take and give (B, C, H, W)."""
    outs = []
    for i, (downsample, stage) in enumerate(
        zip(backbone.downsample_layers, backbone.stages, strict=True)
    ):
        x = stage(downsample(x))
        if i in backbone.out_indices:
            norm = getattr(backbone, f'norm{i}')
            outs.append(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous())
    return tuple(outs)
