"""Shifted windows, as mmdet has them."""

from torch import Tensor, nn

from mmbiformer.layers import Attention
from mmbiformer.layers.checks import check_divides
from mmbiformer.registry import MODELS

WINDOW = 7


@MODELS.register_module()
class ShiftedWindowAttention(Attention):
    """mmdet's attention of Swin: within windows of 7 x 7, with a relative position bias.

    Liu et al., Swin Transformer, ICCV 2021 (arXiv 2103.14030), section 3.2. As there, zeros that
    fill up the last windows take part.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
        is_shifted (bool): Whether windows are shifted by three tokens.
    """

    def __init__(self, dim: int, num_heads: int, is_shifted: bool) -> None:
        from mmdet.models.backbones.swin import ShiftWindowMSA

        super().__init__()
        check_divides('num_heads', num_heads, dim)
        shift = WINDOW // 2 if is_shifted else 0
        self.windows = ShiftWindowMSA(dim, num_heads, WINDOW, shift)
        self.windows.w_msa.init_weights()  # of the bias; nobody else calls it
        # The projection is of each token alone, so it may follow when windows are joined again,
        # where the block fuses it.
        self.proj = self.windows.w_msa.proj
        self.windows.w_msa.proj = nn.Identity()

    def mix(self, x: Tensor) -> Tensor:
        """What a map (B, H, W, C) gives before the output projection."""
        return self.windows(x.flatten(1, 2), x.shape[1:3]).view_as(x)
