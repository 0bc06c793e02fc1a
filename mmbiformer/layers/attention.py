"""The two attentions of BiFormer, and their base, on channels-last maps (B, H, W, C)."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.ops import routed_attention
from mmbiformer.ops.any_size import crop, pad_to_regions
from mmbiformer.ops.routing import Routing, route

from .depthwise import depthwise_conv
from .maps import add_into

LCE_KERNEL = 5


def build_lce(dim: int) -> nn.Conv2d:
    """Local context enhancement (paper, equation 6; the official code calls it LePE)."""
    return nn.Conv2d(dim, dim, LCE_KERNEL, padding=LCE_KERNEL // 2, groups=dim)


class Attention(nn.Module, ABC):
    """Base of attentions: what mixes tokens, and an output projection behind it.

    A subclass has a linear layer ``proj`` and a method ``mix``. If it leaves ``forward`` alone, a
    block may fuse the output projection, and the input projection where there is one, with what
    surrounds the attention.
    """

    proj: nn.Linear
    # The layer that alone sees the input; ``mix`` takes its output in three equal parts. Where it
    # is None, ``mix`` takes the input itself.
    input_projection: nn.Linear | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        if self.input_projection is None:
            return self.proj(self.mix(x))
        return self.proj(self.mix(*self.input_projection(x).chunk(3, dim=-1)))

    @abstractmethod
    def mix(self, *maps: Tensor) -> Tensor:
        """The map (B, H, W, C) that the output projection takes."""


class BiLevelRoutingAttention(Attention):
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

    @property
    def input_projection(self) -> nn.Linear:
        return self.qkv

    def route(self, q: Tensor, k: Tensor) -> Routing:
        """Route by queries and keys (B, H, W, C), the first two parts of ``qkv(x)``."""
        pad_query, pad_key, _ = self._pads()
        return route(q, k, self.topk, self.partition_factor, pad_query, pad_key)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        _, pad_key, pad_value = self._pads()
        out = routed_attention(
            q,
            k,
            v,
            self.route(q, k).indices,
            partition_factor=self.partition_factor,
            num_heads=self.num_heads,
            scale=self.scale,
            pad_key=pad_key,
            pad_value=pad_value,
            backend=self.backend,
        )
        return add_into(out, self._local_context(v, pad_value))

    def _pads(self) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
        """Query, key and value of a padding token, (C, ) each, where padding takes part."""
        return self.qkv.bias.chunk(3) if self.padding == 'official' else (None, None, None)

    def _local_context(self, v: Tensor, pad_value: Tensor | None) -> Tensor:
        """LCE of the values; sees as much of the padding as its kernel reaches."""
        height, width = v.shape[1:3]
        if pad_value is not None:
            v = pad_to_regions(v, self.partition_factor, pad_value, reach=LCE_KERNEL // 2)
        return crop(depthwise_conv(self.lce, v), height, width)


class FullAttention(Attention):
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

    def mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        q, k, v = rearrange(
            self.qkv(x), 'b h w (three n d) -> three b n (h w) d', three=3, n=self.num_heads
        )
        out = F.scaled_dot_product_attention(q, k, v)
        out = rearrange(out, 'b n (h w) d -> b h w (n d)', h=x.shape[1])
        return add_into(out, depthwise_conv(self.lce, x))
