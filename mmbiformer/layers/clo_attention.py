"""The attention of CloFormer (Fan et al. 2023, arXiv 2303.17803) on channels-last maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention
from .checks import check_int, check_ints
from .depthwise import depthwise_conv
from .maps import to_channels_first, to_channels_last


class CloAttention(Attention):
    """Heads that see a neighbourhood, by AttnConv, beside heads that see the whole map, pooled.

    AttnConv (section 3.2) has no softmax: a depthwise convolution passes over queries, keys and
    values, and ``tanh(scale * fc2(swish(fc1(q * k))))`` is the gate of the values. Global heads
    attend to keys and values of the average-pooled map by softmax. Both scale by
    ``head_dim ** -0.5``; an output projection follows.

    The official code asks for a map that ``pool_size`` divides. Here a last pool is the average of
    what there is, so that any size works.

    Args:
        dim (int): Number of channels C.
        conv_heads (Sequence[int]): Number of heads of AttnConv with each kernel. Empty: none.
            Defaults to (3,).
        kernel_sizes (Sequence[int]): Their kernels, odd; one entry for each of ``conv_heads``.
            Defaults to (3,).
        global_heads (int): Number of global heads; 0 for none. Defaults to 1.
        pool_size (int): Tokens that a key of the global heads averages, along each axis.
            Defaults to 8.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.
    """

    def __init__(
        self,
        dim: int,
        conv_heads: Sequence[int] = (3,),
        kernel_sizes: Sequence[int] = (3,),
        global_heads: int = 1,
        pool_size: int = 8,
    ) -> None:
        super().__init__()
        check_int('dim', dim)
        check_ints('conv_heads', conv_heads)
        check_ints('kernel_sizes', kernel_sizes)
        check_int('global_heads', global_heads, 0)
        check_int('pool_size', pool_size)
        self.conv_heads, self.kernel_sizes = tuple(conv_heads), tuple(kernel_sizes)
        self.global_heads, self.pool_size = global_heads, pool_size
        self._check(dim)
        self.head_dim = dim // self.num_heads
        widths = [heads * self.head_dim for heads in self.conv_heads]
        self.qkvs = nn.ModuleList(nn.Linear(dim, 3 * width) for width in widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(3 * width, 3 * width, kernel, padding=kernel // 2, groups=3 * width)
            for width, kernel in zip(widths, self.kernel_sizes, strict=True)
        )
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for width in widths
        )
        if global_heads:
            width = global_heads * self.head_dim
            self.global_q = nn.Linear(dim, width)
            self.global_kv = nn.Linear(dim, 2 * width)
        self.proj = nn.Linear(dim, dim)

    @property
    def num_heads(self) -> int:
        """Number of heads of both kinds."""
        return sum(self.conv_heads) + self.global_heads

    def mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        outs = [self._attend_by_conv(x, i) for i in range(len(self.convs))]
        if self.global_heads:
            outs.append(self._attend_globally(x))
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=-1)

    def _attend_by_conv(self, x: Tensor, index: int) -> Tensor:
        q, k, v = depthwise_conv(self.convs[index], self.qkvs[index](x)).chunk(3, dim=-1)
        return torch.tanh(self.head_dim**-0.5 * self.gates[index](q * k)) * v

    def _attend_globally(self, x: Tensor) -> Tensor:
        height = x.shape[1]
        q = rearrange(self.global_q(x), 'b h w (n d) -> b n (h w) d', d=self.head_dim)
        if self.pool_size > 1:
            pooled = F.avg_pool2d(to_channels_first(x), self.pool_size, ceil_mode=True)
            x = to_channels_last(pooled)
        k, v = rearrange(
            self.global_kv(x), 'b h w (two n d) -> two b n (h w) d', two=2, d=self.head_dim
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return rearrange(out, 'b n (h w) d -> b h w (n d)', h=height)

    def _check(self, dim: int) -> None:
        if len(self.conv_heads) != len(self.kernel_sizes):
            raise ValueError(
                f'kernel_sizes={self.kernel_sizes} must have as many entries as '
                f'conv_heads={self.conv_heads}'
            )
        if not self.num_heads:
            raise ValueError('conv_heads=() and global_heads=0: one of them is needed')
        if dim % self.num_heads:
            raise ValueError(
                f'dim={dim} does not divide into {self.num_heads} heads, conv_heads='
                f'{self.conv_heads} and global_heads={self.global_heads}: choose a number of '
                'heads that divides it'
            )
        even = [kernel for kernel in self.kernel_sizes if kernel % 2 == 0]
        if even:
            raise ValueError(f'kernel_sizes={self.kernel_sizes} has {even[0]}: it must be odd')
