"""Criss-cross attention, as mmcv has it."""

from torch import Tensor, nn

from mmbiformer.layers.maps import to_channels_first, to_channels_last
from mmbiformer.registry import MODELS

REDUCTION = 8  # of queries and keys, in mmcv as in the paper
RECURRENCE = 2


@MODELS.register_module()
class CrissCrossAttention(nn.Module):
    """mmcv's attention of each token to its row and its column, twice with the same weights.

    Huang et al., CCNet, ICCV 2019 (arXiv 1811.11721), section 3.2 and 3.3: one head, queries and
    keys of C / 8, a residual connection within, which the second time needs, and R = 2. Its
    learnt factor of the attended values begins with 0, as the authors' does.

    Args:
        dim (int): Number of channels C; a multiple of 8.
    """

    def __init__(self, dim: int) -> None:
        from mmcv.ops import CrissCrossAttention as OnceCrissCross

        super().__init__()
        if dim % REDUCTION:
            raise ValueError(f'dim={dim} must be a multiple of {REDUCTION}: queries have dim / 8')
        self.once = OnceCrissCross(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        x = to_channels_first(x)
        for _ in range(RECURRENCE):
            x = self.once(x)
        return to_channels_last(x)
