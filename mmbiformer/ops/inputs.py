"""What every backend is given."""

from typing import NamedTuple

from torch import Tensor

from .regions import Partition


class Inputs(NamedTuple):
    """Arguments of :func:`mmbiformer.ops.routed_attention`, checked, in the order of its operator.

    Attributes:
        q, k, v (Tensor): Maps, channels last, of one dtype. Keys and values have one size, which
            may be another than the queries'; queries and keys have one width.
        indices (Tensor): int64 region numbers, (B, S * S, K).
        pad_key, pad_value (Tensor, optional): (C, ) of k and of v, of their dtype; both or none.
        routing_weights (Tensor, optional): Factors of the keys and values of each listed region,
            (B, S * S, K), of the same dtype.
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
    routing_weights: Tensor | None = None

    @property
    def partition(self) -> Partition:
        """How the map of queries is cut into regions."""
        return Partition(*self.q.shape[:3], self.partition_factor)

    @property
    def key_partition(self) -> Partition:
        """How the maps of keys and values are cut into regions."""
        return Partition(*self.k.shape[:3], self.partition_factor)

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """What gradients are for, in the order in which backends return them."""
        return self.q, self.k, self.v, self.pad_key, self.pad_value, self.routing_weights

    @property
    def head_dim(self) -> int:
        """Channels of one head of queries and keys."""
        return self.q.shape[-1] // self.num_heads

    @property
    def masks_padding(self) -> bool:
        """Whether there are padding keys that take no part."""
        return self.pad_key is None and self.key_partition.is_padded
