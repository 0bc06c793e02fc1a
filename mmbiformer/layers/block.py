"""The BiFormer block (paper, figure 4b) on channels-last maps."""

from torch import Tensor, nn

from .attention import conv_channels_last

LAYER_NORM_EPS = 1e-6
MLP_RATIO = 3


class DropPath(nn.Module):
    """Stochastic depth per sample (Huang et al., ECCV 2016): drops the whole branch.

    Args:
        drop_prob (float): Probability of dropping a sample's branch, in [0, 1).
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Scale the kept samples of x (B, ...) by 1 / (1 - drop_prob) when training."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'


class BiFormerBlock(nn.Module):
    """Convolutional position encoding, attention and MLP, each with a residual connection.

    Args:
        dim (int): Number of channels C.
        attention (nn.Module): Maps (B, H, W, C) to the same shape.
        drop_path (float): Probability of stochastic depth.
    """

    def __init__(self, dim: int, attention: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv_position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        x = x + conv_channels_last(self.conv_position, x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
