"""The blocks of CloFormer (Fan et al. 2023, arXiv 2303.17803, figure 2)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .depthwise import depthwise_conv
from .drop_path import DropPath
from .maps import to_channels_first, to_channels_last

MLP_RATIO = 4
CONV_KERNEL = 5  # of the MLP and of the strided shortcut


class CloBlock(nn.Module):
    """Attention and a convolutional MLP, each with a norm before it and a residual connection.

    Args:
        dim (int): Number of channels C.
        attention (nn.Module): Maps (B, H, W, C) to the same shape.
        drop_path (float): Probability of stochastic depth.
        mlp (nn.Module, optional): What stands for the MLP that keeps width and size.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        drop_path: float = 0.0,
        mlp: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dim)
        self.attn = attention
        self.norm2 = nn.GroupNorm(1, dim)
        self.mlp = ConvMLP(dim, dim, stride=1) if mlp is None else mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        x = self._attend(x)
        return x + self.drop_path(self.mlp(_normalise(self.norm2, x)))

    def _attend(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.attn(_normalise(self.norm1, x)))


class StridedCloBlock(CloBlock):
    """The block between two stages: its MLP halves the map's size, and so does its shortcut.

    Args:
        dim (int): Number of channels C.
        out_dim (int): Channels of the next stage.
        attention (nn.Module): Maps (B, H, W, C) to the same shape.
        drop_path (float): Probability of stochastic depth.
        with_cp (bool): Recompute the attention in the backward pass. The rest has a BatchNorm,
            whose statistics would be updated twice.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        attention: nn.Module,
        drop_path: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__(dim, attention, drop_path, ConvMLP(dim, out_dim, stride=2))
        self.downsample = nn.Sequential(
            nn.Conv2d(dim, dim, CONV_KERNEL, stride=2, padding=CONV_KERNEL // 2),
            nn.BatchNorm2d(dim),
        )
        self.project = nn.Linear(dim, out_dim)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_dim, ceil(H / 2), ceil(W / 2))."""
        x = to_channels_last(x)
        if self.with_cp and torch.is_grad_enabled():
            x = checkpoint(self._attend, x, use_reentrant=False)
        else:
            x = self._attend(x)
        short = self.project(to_channels_last(self.downsample(to_channels_first(x))))
        return to_channels_first(short + self.drop_path(self.mlp(_normalise(self.norm2, x))))


class ConvMLP(nn.Module):
    """Two linear layers with GELU and a depthwise convolution between them.

    Args:
        dim (int): Number of channels C.
        out_dim (int): Number of channels that come out.
        stride (int): 1, or 2 to halve the map's size.
    """

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        hidden = MLP_RATIO * dim
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.conv = nn.Conv2d(
            hidden, hidden, CONV_KERNEL, stride, padding=CONV_KERNEL // 2, groups=hidden
        )
        self.fc2 = nn.Linear(hidden, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        x = self.act(self.fc1(x))
        if self.conv.stride == (1, 1):
            x = depthwise_conv(self.conv, x)
        else:
            x = to_channels_last(self.conv(to_channels_first(x)))
        return self.fc2(x)


def _normalise(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return to_channels_last(norm(to_channels_first(x)))
