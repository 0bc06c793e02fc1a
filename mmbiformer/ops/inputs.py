"""What every backend is given."""

from typing import NamedTuple

from torch import Tensor

from .regions import Partition


class Inputs(NamedTuple):
    """Arguments of :func:`mmbiformer.ops.routed_attention`, checked, in the order of its operator.

    Attributes:
        q, k, v (Tensor): (B, H, W, C), of one dtype.
        indices (Tensor): int64 region numbers, (B, S * S, K).
        pad_key, pad_value (Tensor, optional): (C, ), of the same dtype; both or none.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    indices: Tensor
    pad_key: Tensor | None
    pad_value: Tensor | None
    partition_factor: int
    num_heads: int
    scale: float

    @property
    def partition(self) -> Partition:
        """How the maps are cut into regions."""
        return Partition(*self.q.shape[:3], self.partition_factor)

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.q.shape[-1] // self.num_heads

    @property
    def masks_padding(self) -> bool:
        """Whether there is padding that takes no part."""
        return self.pad_key is None and self.partition.is_padded
