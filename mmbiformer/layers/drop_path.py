"""Stochastic depth."""

from torch import Tensor, nn


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
