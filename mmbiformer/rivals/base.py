"""What the rivals share: heads, windows, and attention within windows."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.layers import Attention
from mmbiformer.layers.checks import check_divides


class ProjectedAttention(Attention):
    """An attention whose queries, keys and values are linear maps of the same token.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_divides('num_heads', num_heads, dim)
        self.num_heads = num_heads
        self.widths = dim, dim, dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    @property
    def input_projection(self) -> nn.Linear:
        return self.qkv


def to_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Cut a map (B, H, W, C) into windows (M, height, width, C); zeros fill up the last ones."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % width, 0, -x.shape[1] % height))
    return rearrange(x, 'b (i h) (j w) c -> (b i j) h w c', h=height, w=width)


def from_windows(windows: Tensor, like: Tensor) -> Tensor:
    """Join windows (M, height, width, C) to a map as high and wide as ``like`` (B, H, W, C)."""
    batch, height, width, _ = like.shape
    rows, columns = -(-height // windows.shape[1]), -(-width // windows.shape[2])
    x = rearrange(windows, '(b i j) h w c -> b (i h) (j w) c', b=batch, i=rows, j=columns)
    return x[:, :height, :width]


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, real: Tensor | None = None) -> Tensor:
    """Softmax attention of every token of a window to every real token of it.

    Args:
        q, k, v (Tensor): Windows (M, h, w, C).
        real (Tensor, optional): Which tokens are no padding, bool (M, h, w).
    """
    parts = (rearrange(x, 'm h w (n d) -> m n (h w) d', n=num_heads) for x in (q, k, v))
    mask = None if real is None else real.flatten(1)[:, None, None]
    out = F.scaled_dot_product_attention(*parts, attn_mask=mask)
    return rearrange(out, 'm n (h w) d -> m h w (n d)', h=q.shape[1])


def real_tokens(x: Tensor, height: int, width: int) -> Tensor | None:
    """Which tokens of a map's windows are no padding, bool (M, height, width); None if all."""
    if x.shape[1] % height == 0 and x.shape[2] % width == 0:
        return None
    real = torch.ones_like(x[..., :1], dtype=torch.bool)
    return to_windows(real, height, width).squeeze(-1)


def attend_in_windows(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, height: int, width: int
) -> Tensor:
    """Softmax attention within windows of a map (B, H, W, C); padding takes no part."""
    parts = (to_windows(x, height, width) for x in (q, k, v))
    return from_windows(attend(*parts, num_heads, real_tokens(q, height, width)), q)
