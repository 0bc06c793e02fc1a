"""Convolutions of patches that do not overlap, as Swin's layout has them, on maps of any size."""

import torch.nn.functional as F
from torch import Tensor, nn

from .maps import to_channels_first, to_channels_last


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel, on (B, C, H, W); zeros fill up the last patches.

    Args:
        in_dim (int): Number of channels.
        dim (int): Number of channels of the output.
        side (int): Height and width of a patch.
    """

    def __init__(self, in_dim: int, dim: int, side: int) -> None:
        super().__init__(in_dim, dim, side, stride=side)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, dim, ceil(H / side), ceil(W / side))."""
        side = self.stride[0]
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (0, -width % side, 0, -height % side)))


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        return to_channels_first(super().forward(to_channels_last(x)))
