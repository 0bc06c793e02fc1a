"""The two attentions of BiFormer, on channels-last maps (B, H, W, C)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.ops import routed_attention, routing_indices
from mmbiformer.ops.exportable import is_exporting
from mmbiformer.ops.regions import crop, pad_bottom_right, pad_to_regions, region_size

from .depthwise import depthwise_conv
from .lean import add_linear, norm_linear

LCE_KERNEL = 5


def build_lce(dim: int) -> nn.Conv2d:
    """Local context enhancement (paper, equation 6; the official code calls it LePE)."""
    return nn.Conv2d(dim, dim, LCE_KERNEL, padding=LCE_KERNEL // 2, groups=dim)


def add(out: Tensor, context: Tensor) -> Tensor:
    """Sum; where no gradient asks in place of ``out``, which nobody else may hold."""
    return out + context if torch.is_grad_enabled() else out.add_(context)


class BiLevelRoutingAttention(nn.Module):
    """Bi-level routing attention (paper, section 3.2 and algorithm 1).

    The softmax scale is ``dim ** -0.5``, over the whole width and not over one head: the released
    models were trained so.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
        partition_factor (int): S; the map is cut into S x S regions.
        topk (int): Number of regions each region attends to.
        padding (str): 'official': padding tokens are zeros before the projection, so they carry
            its bias and take part in region means, softmax and LCE. 'masked': they take no part.
        backend (str): Backend of :func:`mmbiformer.ops.routed_attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        partition_factor: int,
        topk: int,
        padding: str = 'official',
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.partition_factor = partition_factor
        self.topk = topk
        self.padding = padding
        self.backend = backend
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.lce = build_lce(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        return self.proj(self._mix(*self.qkv(x).chunk(3, dim=-1)))

    @property
    def lean_parts(self) -> tuple[nn.Module, ...]:
        """What :meth:`forward_lean` stands in for, besides this module."""
        return self.qkv, self.proj

    def forward_lean(self, x: Tensor, norm: nn.LayerNorm, scale: Tensor | None) -> Tensor:
        """``x + scale * self(norm(x))`` of a map (B, H, W, C), as :func:`add_linear` writes it."""
        out = self._mix(*norm_linear(x, norm, self.qkv, 3))
        return add_linear(x, out, scale, self.proj)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        if self.padding == 'official':
            pad_query, pad_key, pad_value = self.qkv.bias.chunk(3)
        else:
            pad_query = pad_key = pad_value = None
        s = self.partition_factor
        indices = routing_indices(q, k, self.topk, s, pad_query, pad_key)
        out = routed_attention(
            q,
            k,
            v,
            indices,
            partition_factor=s,
            num_heads=self.num_heads,
            scale=self.scale,
            pad_key=pad_key,
            pad_value=pad_value,
            backend=self.backend,
        )
        return add(out, self._local_context(v, pad_value))

    def _local_context(self, v: Tensor, pad_value: Tensor | None) -> Tensor:
        """LCE of the values; sees as much of the padding as its kernel reaches."""
        height, width = v.shape[1:3]
        if pad_value is not None and is_exporting():
            v = pad_to_regions(v, self.partition_factor, pad_value)  # for any size, not the least
        elif pad_value is not None:
            s, reach = self.partition_factor, LCE_KERNEL // 2
            h, w = region_size(height, width, s)
            bottom, right = min(h * s - height, reach), min(w * s - width, reach)
            v = pad_bottom_right(v, bottom, right, pad_value)
        return crop(depthwise_conv(self.lce, v), height, width)


class FullAttention(nn.Module):
    """Attention of every token to every token, as BiFormer's last stage has it.

    Unlike the routed one it has eight heads whatever the width, no bias in qkv, a softmax scale of
    ``head_dim ** -0.5``, and its LCE sees the attention's input instead of the values.

    Args:
        dim (int): Number of channels C; a multiple of 8.
    """

    num_heads = 8

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.lce = build_lce(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        return self.proj(self._mix(x))

    @property
    def lean_parts(self) -> tuple[nn.Module, ...]:
        """What :meth:`forward_lean` stands in for, besides this module."""
        return (self.proj,)

    def forward_lean(self, x: Tensor, norm: nn.LayerNorm, scale: Tensor | None) -> Tensor:
        """``x + scale * self(norm(x))`` of a map (B, H, W, C), as :func:`add_linear` writes it."""
        return add_linear(x, self._mix(norm(x)), scale, self.proj)

    def _mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        q, k, v = rearrange(
            self.qkv(x), 'b h w (three n d) -> three b n (h w) d', three=3, n=self.num_heads
        )
        out = F.scaled_dot_product_attention(q, k, v)
        out = rearrange(out, 'b n (h w) d -> b h w (n d)', h=x.shape[1])
        return add(out, depthwise_conv(self.lce, x))
