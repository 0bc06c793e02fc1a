"""Rows of regions. What the backend that works on them gives is tested with the op."""

import pytest
import torch

from mmbiformer.ops.head_major import PADDING_ROWS, Grid


@pytest.mark.parametrize('topk', [1, 15, 16, 32])
def test_gradients_of_padding_are_spread_over_rows(topk):
    """Also where each list has its region of padding at the same place."""
    grid = Grid(2, 9, 9, 8)  # 5 x 5 of 8 x 8 regions hold tokens
    indices = torch.zeros(2, 64, topk, dtype=torch.int64)
    indices[..., 0] = 63
    routed = grid.routed_rows(indices, num_heads=2)
    head = 2 * 25 + PADDING_ROWS
    assert (routed[:, 1:] % head < 50).all()
    counts = routed[:, 0].bincount(minlength=2 * head).view(2, head)[:, 50:]
    assert counts.sum() == 2 * 50
    assert counts.max() == 2
