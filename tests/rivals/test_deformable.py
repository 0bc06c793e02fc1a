"""Deformable attention against plain loops."""

import math

import numpy as np
import pytest
import torch
from dense_attention import assert_near
from layer_loops import linear, local_context, randomise

from mmbiformer.rivals import DeformableAttention

DIM, HEADS, SIDE = 32, 8, 3
GROUPS = HEADS // 4
GROUP_DIM, HEAD_DIM = DIM // GROUPS, DIM // HEADS


def interpolated(values: np.ndarray, row: float, column: float) -> np.ndarray:
    """Values (H, W, ...) at a place between tokens; zeros beyond the map."""
    total = np.zeros(values.shape[2:])
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            total += max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x)) * values[y, x]
    return total


def by_loops(attention: DeformableAttention, x: np.ndarray) -> np.ndarray:
    """The attention of a map (H, W, C)."""
    height, width, _ = x.shape
    q = linear(attention.q, x)
    conv, _, last = attention.offsets
    table = attention.bias_table.detach().numpy()
    mixed = np.zeros_like(x)
    sampled = np.zeros_like(x)
    points = np.zeros((GROUPS, height, width, 2))
    for group in range(GROUPS):
        channels = slice(group * GROUP_DIM, (group + 1) * GROUP_DIM)
        hidden = local_context(conv, q[..., channels])
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / 2**0.5)) / 2
        offsets = np.tanh(hidden @ last.weight.detach().numpy()[:, :, 0, 0].T)
        for row in range(height):
            for column in range(width):
                points[group, row, column] = np.array([row, column]) + offsets[row, column]
                sampled[row, column, channels] = interpolated(
                    x[..., channels], *points[group, row, column]
                )
    k, v = np.split(linear(attention.kv, sampled), 2, axis=-1)
    for head in range(HEADS):
        group, channels = head // 4, slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        for row in range(height):
            for column in range(width):
                logits = np.zeros((height, width))
                for y in range(height):
                    for z in range(width):
                        down, right = np.array([row, column]) - points[group, y, z]
                        # The table spans the map: its middle is no offset, its ends are the map's.
                        bias = interpolated(
                            table[head],
                            (1 + down / max(height - 1, 1)) * (SIDE - 1),
                            (1 + right / max(width - 1, 1)) * (SIDE - 1),
                        )
                        product = q[row, column, channels] @ k[y, z, channels]
                        logits[y, z] = HEAD_DIM**-0.5 * product + bias
                weights = np.exp(logits)
                mixed[row, column, channels] = (
                    np.tensordot(weights, v[..., channels], axes=2) / weights.sum()
                )
    return linear(attention.proj, mixed)


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (3, 3), (2, 5), (4, 1)])
def test_output(height, width):
    attention = randomise(DeformableAttention(DIM, HEADS, SIDE))
    x = torch.randn(2, height, width, DIM, dtype=torch.float64)
    expected = torch.from_numpy(np.stack([by_loops(attention, image.numpy()) for image in x]))
    assert_near([attention(x)], [expected], 1e-12)


def test_gradients():
    attention = randomise(DeformableAttention(DIM, HEADS, SIDE))
    x = torch.randn(1, 3, 4, DIM, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*attention.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(attention, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_points_stay_within_a_token():
    attention = randomise(DeformableAttention(DIM, HEADS, SIDE))
    q = 100 * torch.randn(2, 4, 5, DIM, dtype=torch.float64)
    moves = attention._move(q)
    assert moves.shape == (2 * GROUPS, 4, 5, 2)
    assert 0.9 < moves.abs().max() <= 1
