"""Sliding windows: each token attends to its neighbourhood."""

import torch
from torch import Tensor, nn

from mmbiformer.layers.checks import check_divides
from mmbiformer.layers.maps import to_channels_first, to_channels_last
from mmbiformer.registry import MODELS

from .neighbourhood import REACH, SIDE, products, sums


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
        qkv = to_channels_last(self.qkv(to_channels_first(x)))
        q, k, v = qkv.unflatten(-1, (self.num_heads, 3, -1)).unbind(-2)  # (B, H, W, N, D)
        by_row, by_column = q.chunk(2, dim=-1)
        of_rows = torch.einsum('bhwnd,ynd->bhwny', by_row, self.row_embedding)
        of_columns = torch.einsum('bhwnd,xnd->bhwnx', by_column, self.column_embedding)
        bias = (of_rows.unsqueeze(-1) + of_columns.unsqueeze(-2)).flatten(-2)
        logits = (products(q, k) + bias).masked_fill(~_is_on_map(x), -torch.inf)
        return sums(logits.softmax(-1).to(v.dtype), v).flatten(-2)


def _is_on_map(x: Tensor) -> Tensor:
    """Which neighbours of each token of a map (B, H, W, C) there are, bool (H, W, 1, 49)."""
    height, width = x.shape[1:3]
    rows, columns = (torch.arange(size, device=x.device).view(-1, 1) for size in (height, width))
    steps = torch.arange(-REACH, REACH + 1, device=x.device)
    rows, columns = rows + steps, columns + steps  # of the neighbours, (H, 7) and (W, 7)
    has_row, has_column = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return (has_row[:, None, :, None] & has_column[:, None]).flatten(-2).unsqueeze(2)
