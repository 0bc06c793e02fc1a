"""Sequential axial attention."""

from torch import Tensor

from mmbiformer.layers.checks import check_choice
from mmbiformer.registry import MODELS

from .base import ProjectedAttention, attend_in_windows

AXES = 'row', 'column'


@MODELS.register_module()
class AxialAttention(ProjectedAttention):
    """Attention of each token to those of its row, or of its column.

    Ho et al., Axial Attention in Multidimensional Transformers, arXiv 1912.12180, section 3.1.
    Layers of the two axes follow each other, so that two blocks reach the whole map. Positions
    are not in the attention there; they are added to the model's input.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
        axis (str): 'row' or 'column'.
    """

    def __init__(self, dim: int, num_heads: int, axis: str) -> None:
        super().__init__(dim, num_heads)
        check_choice('axis', axis, AXES)
        self.axis = axis

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        window = (1, q.shape[2]) if self.axis == 'row' else (q.shape[1], 1)
        return attend_in_windows(q, k, v, self.num_heads, *window)
