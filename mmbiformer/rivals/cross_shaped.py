"""Cross-shaped windows."""

import torch
from torch import Tensor, nn

from mmbiformer.layers.attention import build_lce
from mmbiformer.layers.checks import check_int
from mmbiformer.layers.depthwise import depthwise_conv
from mmbiformer.registry import MODELS

from .base import ProjectedAttention, attend, from_windows, real_tokens, to_windows

LEPE_KERNEL = 3


@MODELS.register_module()
class CrossShapedWindowAttention(ProjectedAttention):
    """Half of the heads attend within stripes of rows, half within stripes of columns.

    Dong et al., CSWin Transformer, CVPR 2022 (arXiv 2107.00652), section 3.2. The position
    encoding LePE, a 3x3 depthwise convolution of the values, is part of the attention of a stripe
    (section 3.3), so it sees no further.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads; even.
        stripe (int): How many rows or columns a stripe has.
    """

    def __init__(self, dim: int, num_heads: int, stripe: int) -> None:
        super().__init__(dim, num_heads)
        if num_heads % 2:
            raise ValueError(
                f'num_heads={num_heads} must be even: half of the heads attend to rows'
            )
        check_int('stripe', stripe)
        self.stripe = stripe
        self.row_lepe = build_lce(dim // 2, LEPE_KERNEL)
        self.column_lepe = build_lce(dim // 2, LEPE_KERNEL)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        height, width = q.shape[1:3]
        rows, columns = zip(*(x.chunk(2, dim=-1) for x in (q, k, v)), strict=True)
        return torch.cat(
            [
                self._attend(*rows, self.row_lepe, self.stripe, width),
                self._attend(*columns, self.column_lepe, height, self.stripe),
            ],
            dim=-1,
        )

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, lepe: nn.Conv2d, height: int, width: int
    ) -> Tensor:
        """Attention and LePE within stripes (height, width) of a map (B, H, W, C / 2)."""
        q_stripes, k_stripes, v_stripes = (to_windows(x, height, width) for x in (q, k, v))
        real = real_tokens(q, height, width)
        out = attend(q_stripes, k_stripes, v_stripes, self.num_heads // 2, real)
        return from_windows(out + depthwise_conv(lepe, v_stripes), q)
