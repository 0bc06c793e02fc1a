"""The base of attentions on channels-last maps (B, H, W, C), and full attention."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .depthwise import add_depthwise_conv

LCE_KERNEL = 5


def build_lce(dim: int, kernel: int = LCE_KERNEL) -> nn.Conv2d:
    """Local context enhancement (paper, equation 6; the official code calls it LePE)."""
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


class Attention(nn.Module, ABC):
    """Base of attentions: what mixes tokens, and an output projection behind it.

    A subclass has a linear layer ``proj`` and a method ``mix``. If it leaves ``forward`` alone, a
    block may fuse the output projection, and the input projection where there is one, with what
    surrounds the attention.
    """

    proj: nn.Linear
    # The layer that alone sees the input; ``mix`` takes its output in parts of these widths. Where
    # it is None, ``mix`` takes the input itself.
    input_projection: nn.Linear | None = None
    widths: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        if self.input_projection is None:
            return self.proj(self.mix(x))
        return self.proj(self.mix(*self.input_projection(x).split(self.widths, dim=-1)))

    @abstractmethod
    def mix(self, *maps: Tensor) -> Tensor:
        """The map (B, H, W, C) that the output projection takes."""


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
        if dim % self.num_heads:
            raise ValueError(f'dim={dim} must be a multiple of {self.num_heads}, the heads it has')
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
        return add_depthwise_conv(out, self.lce, x)
