"""Head-major maps. What the backend that works on them gives is tested with the op."""

import pytest
import torch

from mmbiformer.ops.head_major import PADDING_REGIONS, routed_regions
from mmbiformer.ops.regions import Partition


@pytest.mark.parametrize('topk', [1, 15, 16, 32])
def test_gradients_of_padding_are_spread_over_regions(topk):
    """Also where each list has its region of padding at the same place."""
    partition = Partition(2, 9, 9, 8)
    assert partition.real_shape == (5, 5)  # of 8 x 8
    indices = torch.zeros(2, 64, topk, dtype=torch.int64)
    indices[..., 0] = 63
    routed = routed_regions(indices, partition, partition, num_heads=2)
    head = 2 * 25 + PADDING_REGIONS
    assert (routed[:, 1:] % head < 50).all()
    uses = routed[:, 0].bincount(minlength=2 * head).view(2, head)[:, 50:]
    assert uses.sum() == 2 * 50
    assert uses.max() == 2
