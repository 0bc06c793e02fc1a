"""The MLP of a transformer block."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Two linear layers with GELU between them, for each token alone.

    Args:
        dim (int): Number of channels C.
        hidden_dim (int): Channels between the layers.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., C) to tokens of the same shape."""
        return self.fc2(self.act(self.fc1(x)))
