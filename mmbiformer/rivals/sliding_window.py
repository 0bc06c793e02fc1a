"""Sliding windows: each token attends to its neighbourhood."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbiformer.layers.maps import to_channels_first, to_channels_last
from mmbiformer.registry import MODELS

from .base import check_divides

SIDE = 7


@MODELS.register_module()
class SlidingWindowAttention(nn.Module):
    """Attention of each token to the 7 x 7 around it; there is nothing beyond the map.

    Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019 (arXiv
    1906.05909), section 3 with equation 3. As there, each head has projections of its own part of
    the channels, learnt embeddings of the row and the column offset, half of the head's channels
    each, are added to the keys, products are not scaled, and no projection follows.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads; their width must be even.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_divides('num_heads', num_heads, dim)
        head_dim = dim // num_heads
        if head_dim % 2:
            raise ValueError(
                f'num_heads={num_heads} of dim={dim} leaves heads of {head_dim} channels: choose '
                'one that leaves an even number, half for rows and half for columns'
            )
        self.num_heads = num_heads
        # For each head queries, keys and values of its own channels.
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, groups=num_heads, bias=False)
        self.row_embedding = nn.Parameter(torch.empty(SIDE, num_heads, head_dim // 2))
        self.column_embedding = nn.Parameter(torch.empty(SIDE, num_heads, head_dim // 2))
        nn.init.trunc_normal_(self.row_embedding, std=0.02)
        nn.init.trunc_normal_(self.column_embedding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        height, width = x.shape[1:3]
        qkv = to_channels_last(self.qkv(to_channels_first(x)))
        q, k, v = qkv.unflatten(-1, (self.num_heads, 3, -1)).unbind(-2)  # (B, H, W, N, D)
        real = torch.ones_like(x[:1, ..., :1], dtype=torch.bool)
        # A neighbourhood is taken row by row: all of it at once were 49 copies of the map.
        logits = torch.stack(
            [
                self._row_logits(q, near, row).masked_fill(~is_near, -torch.inf)
                for row, (near, is_near) in enumerate(
                    zip(_neighbours(k), _neighbours(real), strict=True)
                )
            ],
            dim=-2,
        )
        attention = logits.flatten(-2).softmax(-1).unflatten(-1, (SIDE, SIDE))
        out = sum(
            (attention[..., row, None, :] * near).sum(-1)
            for row, near in enumerate(_neighbours(v))
        )
        return out.reshape(x.shape[0], height, width, -1)

    def _row_logits(self, q: Tensor, near: Tensor, row: int) -> Tensor:
        """Products with the keys of a row of the neighbourhood, (B, H, W, N, 7)."""
        by_row, by_column = q.chunk(2, dim=-1)
        of_row = (by_row * self.row_embedding[row]).sum(-1, keepdim=True)
        of_columns = torch.einsum('bhwnd,xnd->bhwnx', by_column, self.column_embedding)
        return (q.unsqueeze(-1) * near).sum(-2) + of_row + of_columns


def _neighbours(x: Tensor) -> list[Tensor]:
    """For each row of the neighbourhood its tokens, behind the last axis: (B, H, W, ..., 7)."""
    reach, height = SIDE // 2, x.shape[1]
    padded = F.pad(x, (0, 0) * (x.ndim - 3) + (reach,) * 4)
    return [padded[:, row : row + height].unfold(2, SIDE, 1) for row in range(SIDE)]
