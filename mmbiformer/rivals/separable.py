"""Spatially separable attention: within windows, then to a sub-sampled map.

mmseg has both halves, which these equal where they serve: its local one lets padding take part
where the window divides the height and not the width (or the reverse), and its global one fails on
maps that are smaller than a patch and drops the rest of those that patches do not divide.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.layers import Attention, PatchConv2d
from mmbiformer.layers.checks import check_divides, check_int
from mmbiformer.layers.maps import to_channels_first, to_channels_last
from mmbiformer.registry import MODELS

from .base import ProjectedAttention, attend_in_windows

WINDOW = 7


@MODELS.register_module()
class LocallyGroupedAttention(ProjectedAttention):
    """Attention within windows of 7 x 7 that do not overlap.

    Chu et al., Twins, NeurIPS 2021 (arXiv 2104.13840), section 3.2, locally-grouped attention.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        return attend_in_windows(q, k, v, self.num_heads, WINDOW, WINDOW)


@MODELS.register_module()
class SubsampledAttention(Attention):
    """Attention of every token to a map that a convolution of patches made smaller.

    Chu et al., Twins, NeurIPS 2021 (arXiv 2104.13840), section 3.2, global sub-sampled attention.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
        ratio (int): Side of a patch; with 1 the map is attended to as it is.
    """

    def __init__(self, dim: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        check_divides('num_heads', num_heads, dim)
        check_int('ratio', ratio)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.subsample = PatchConv2d(dim, dim, ratio) if ratio > 1 else None
        self.norm = nn.LayerNorm(dim) if ratio > 1 else None
        self.proj = nn.Linear(dim, dim)

    def mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        source = x
        if self.subsample is not None:
            source = self.norm(to_channels_last(self.subsample(to_channels_first(x))))
        heads = 'b h w (n d) -> b n (h w) d'
        q, k, v = (
            rearrange(part, heads, n=self.num_heads)
            for part in (self.q(x), *self.kv(source).chunk(2, dim=-1))
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return rearrange(out, 'b n (h w) d -> b h w (n d)', h=x.shape[1])
