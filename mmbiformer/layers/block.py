"""The BiFormer block (paper, figure 4b) on channels-last maps."""

from torch import Tensor, nn

from .attention import BiLevelRoutingAttention, FullAttention, add
from .depthwise import depthwise_conv
from .lean import add_norm_mlp, is_lean

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
        scale = self.sample_scale(x)
        return x if scale is None else x * scale.view(-1, *[1] * (x.ndim - 1))

    def sample_scale(self, x: Tensor) -> Tensor | None:
        """What to scale each sample of x (B, ...) by: (B, ), or None for 1."""
        if not self.training or self.drop_prob == 0.0:
            return None
        keep = 1.0 - self.drop_prob
        return x.new_empty(x.shape[0]).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'


class BiFormerBlock(nn.Module):
    """Convolutional position encoding, attention and MLP, each with a residual connection.

    Args:
        dim (int): Number of channels C.
        attention (nn.Module): The attention; maps (B, H, W, C) to the same shape.
        drop_path (float): Probability of stochastic depth.
    """

    def __init__(
        self,
        dim: int,
        attention: BiLevelRoutingAttention | FullAttention,
        drop_path: float = 0.0,
    ) -> None:
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
        if self._is_lean(x):
            # Without gradients all of the block works in place of what the convolution returns.
            x = add(depthwise_conv(self.conv_position, x), x)
            x = self.attn.forward_lean(x, self.norm1, self.drop_path.sample_scale(x))
            return add_norm_mlp(x, self.drop_path.sample_scale(x), self.norm2, *self.mlp[::2])
        x = depthwise_conv(self.conv_position, x) + x
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _is_lean(self, x: Tensor) -> bool:
        if not hasattr(self.attn, 'lean_parts'):
            return False
        parts = self.conv_position, self.norm1, self.attn, self.drop_path, self.norm2, self.mlp
        return is_lean(x, *parts, *self.attn.lean_parts)
