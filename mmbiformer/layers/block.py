"""The BiFormer block (paper, figure 4b) on channels-last maps."""

from torch import Tensor, nn

from . import fused
from .attention import Attention
from .depthwise import add_depthwise_conv, depthwise_conv
from .drop_path import DropPath
from .fused_checks import fusing_problem, hook_problem, is_eager_on_cpu, log_unfused
from .mlp import MLP

LAYER_NORM_EPS = 1e-6
MLP_RATIO = 3


class BiFormerBlock(nn.Module):
    """Convolutional position encoding, attention and MLP, each with a residual connection.

    Args:
        dim (int): Number of channels C.
        attention (nn.Module): The attention; maps (B, H, W, C) to the same shape. On CPUs one that
            inherits :class:`Attention` and its ``forward`` is fused with what surrounds it.
        drop_path (float): Probability of stochastic depth.
        mlp_ratio (int): Channels between the layers of the MLP, as a multiple of C.
        conv_position (bool): Whether there is a position encoding; BiFormer-STL has none.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        drop_path: float = 0.0,
        mlp_ratio: int = MLP_RATIO,
        conv_position: bool = True,
    ) -> None:
        super().__init__()
        self.conv_position = (
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if conv_position else None
        )
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = MLP(dim, mlp_ratio * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to a map of the same shape."""
        if is_eager_on_cpu(x):
            problem = self._fusing_problem(x)
            if problem is None:
                return self._forward_fused(x)
            log_unfused(type(self).__name__, problem)
        if self.conv_position is not None:
            x = depthwise_conv(self.conv_position, x) + x
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _forward_fused(self, x: Tensor) -> Tensor:
        """Compute the same; without gradients, in the memory of the first sum."""
        is_own = self.conv_position is not None
        if is_own:
            x = add_depthwise_conv(x, self.conv_position, x)
        scale = self.drop_path.sample_scale(x)
        attended = self._attend_fused(x)
        x = fused.add_linear(x, attended, scale, self.attn.proj, may_overwrite=is_own)
        return fused.add_norm_mlp(x, self.drop_path.sample_scale(x), self.norm2, self.mlp)

    def _attend_fused(self, x: Tensor) -> Tensor:
        """The attention of norm1(x) before its output projection."""
        projection = self.attn.input_projection
        if projection is None:
            return self.attn.mix(self.norm1(x))
        return self.attn.mix(*fused.norm_linear(x, self.norm1, projection, self.attn.widths))

    def _fusing_problem(self, x: Tensor) -> str | None:
        """Why the modules must run one by one; None where the fused path may run."""
        attention, kind = self.attn, type(self.attn)
        if not isinstance(attention, Attention) or kind.forward is not Attention.forward:
            return f'attn is a {kind.__name__} with a forward of its own'
        if problem := hook_problem(attention):
            return f'attn {problem}'
        modules = dict(self.named_children())
        del modules['attn']
        modules['output projection of attn'] = attention.proj
        if attention.input_projection is not None:
            modules['input projection of attn'] = attention.input_projection
        return fusing_problem(x, modules)
