"""Deformable attention."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmbiformer.layers import Attention
from mmbiformer.layers.checks import check_divides, check_int
from mmbiformer.registry import MODELS

HEADS_PER_GROUP = 4  # DAT-T: 12 heads in 3 groups, 24 in 6
KERNEL = 5
RANGE = 2  # the paper's s, in halves of the way to the next token


@MODELS.register_module()
class DeformableAttention(Attention):
    """Attention of every token to points of the map that a small network moves.

    Xia et al., Vision Transformer with Deformable Attention, CVPR 2022 (arXiv 2201.00520), section
    3.2, equations 4 to 7. For each group of four heads, a 5x5 depthwise convolution of the
    queries, GELU and a 1x1 convolution without bias tell how far each token's point lies from it,
    at most one token. Keys and values are projected from the map, interpolated at the points, and
    the relative position bias is interpolated in a table that spans the map whatever its size.
    As in DAT-T there are as many points as tokens, so that time and memory grow with the square
    of their number.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads; a multiple of 4.
        table_side (int): Side of the map for which the table has an entry for each offset.
    """

    def __init__(self, dim: int, num_heads: int, table_side: int) -> None:
        super().__init__()
        check_divides('num_heads', num_heads, dim)
        check_int('table_side', table_side)
        if num_heads % HEADS_PER_GROUP:
            raise ValueError(
                f'num_heads={num_heads} must be a multiple of {HEADS_PER_GROUP}, the heads that '
                'share points: choose a wider stage or narrower heads'
            )
        self.num_heads = num_heads
        self.num_groups = num_heads // HEADS_PER_GROUP
        group_dim = dim // self.num_groups
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.offsets = nn.Sequential(
            nn.Conv2d(group_dim, group_dim, KERNEL, padding=KERNEL // 2, groups=group_dim),
            nn.GELU(),
            nn.Conv2d(group_dim, 2, 1, bias=False),
        )
        self.bias_table = nn.Parameter(torch.empty(num_heads, *[2 * table_side - 1] * 2))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)

    def mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        q = self.q(x)
        height, width = x.shape[1:3]
        # Rows and columns are counted in float32 or wider: float16 has no room for fractions.
        size = torch.tensor([height, width], device=x.device)
        size = size.to(torch.promote_types(x.dtype, torch.float32))
        tokens = _places(height, width, size)
        points = tokens + self._move(q).to(size.dtype)
        sampled = rearrange(
            _sample(rearrange(x, 'b h w (g c) -> (b g) c h w', g=self.num_groups), points, size),
            '(b g) c h w -> b h w (g c)',
            g=self.num_groups,
        )
        k, v = self.kv(sampled).chunk(2, dim=-1)
        heads = 'b h w (n d) -> b n (h w) d'
        q, k, v = (rearrange(part, heads, n=self.num_heads) for part in (q, k, v))
        bias = self._bias(tokens, points, size).to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return rearrange(out, 'b n (h w) d -> b h w (n d)', h=height)

    def _move(self, q: Tensor) -> Tensor:
        """How many rows and columns each group's point lies off its token, (B * G, H, W, 2)."""
        offsets = self.offsets(rearrange(q, 'b h w (g c) -> (b g) c h w', g=self.num_groups))
        return offsets.tanh().permute(0, 2, 3, 1) * (RANGE / 2)

    def _bias(self, tokens: Tensor, points: Tensor, size: Tensor) -> Tensor:
        """The relative position bias of each token and point, (B, N, H * W, H * W)."""
        moves = tokens.flatten(0, 1).unsqueeze(1) - points.flatten(1, 2).unsqueeze(1)
        moves = moves / (size - 1).clamp(min=1)  # the corners of the table are -1 and 1
        table = self.bias_table.unflatten(0, (self.num_groups, -1)).to(moves.dtype)
        table = table.repeat(len(moves) // self.num_groups, 1, 1, 1)
        bias = F.grid_sample(table, moves.flip(-1), align_corners=True)
        return rearrange(bias, '(b g) n q k -> b (g n) q k', g=self.num_groups)


def _places(height: int, width: int, size: Tensor) -> Tensor:
    """Row and column of each token, (H, W, 2), like ``size``."""
    rows = torch.arange(height, device=size.device, dtype=size.dtype)
    columns = torch.arange(width, device=size.device, dtype=size.dtype)
    return torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1)


def _sample(x: Tensor, points: Tensor, size: Tensor) -> Tensor:
    """Maps (M, C, H, W) interpolated at rows and columns (M, H, W, 2); zeros beyond the map."""
    grid = (2 * points + 1) / size - 1  # PyTorch's -1 and 1 are the edges of the map
    return F.grid_sample(x.to(grid.dtype), grid.flip(-1), align_corners=False).to(x.dtype)
