"""Sliding windows and criss-cross attention against dense masked attention."""

import pytest
import torch
from dense_attention import (
    SIZES,
    assert_equals_dense,
    from_heads,
    masked_attention,
    pairs,
    places,
    same,
)
from layer_loops import randomise
from torch import Tensor

from mmbiformer.rivals import CrissCrossAttention, SlidingWindowAttention

DIM, HEADS = 16, 4
each_size = pytest.mark.parametrize(('height', 'width'), SIZES)


def maps(height: int, width: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, height, width, DIM, dtype=torch.float64)


@each_size
def test_sliding_window(height, width):
    attention = randomise(SlidingWindowAttention(DIM, HEADS))
    # Of the key, seen from the query.
    down, right = (torch.sub(*reversed(pairs(place))) for place in places(height, width))
    mask = (down.abs() <= 3) & (right.abs() <= 3)
    index = [offset.clamp(-3, 3) + 3 for offset in (down, right)]

    def expected(x: Tensor) -> Tensor:
        weight = attention.qkv.weight.view(HEADS, 3, DIM // HEADS, DIM // HEADS)
        groups = x.flatten(1, 2).unflatten(-1, (HEADS, -1))
        q, k, v = torch.einsum('btnc,npdc->pbntd', groups, weight)
        embedding = torch.cat(
            [attention.row_embedding[index[0]], attention.column_embedding[index[1]]], dim=-1
        )
        bias = torch.einsum('bnqd,qknd->bnqk', q, embedding)
        return from_heads(masked_attention(q, k, v, mask, bias)).view_as(x)

    assert_equals_dense(attention, maps(height, width), expected)


@each_size
def test_criss_cross(height, width):
    attention = randomise(CrissCrossAttention(DIM))
    once = attention.once
    rows, columns = places(height, width)
    mask = same(rows) | same(columns)

    def linear(conv, tokens: Tensor) -> Tensor:
        return tokens @ conv.weight.flatten(1).T + conv.bias

    def expected(x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        for _ in range(2):
            parts = (
                linear(conv, tokens) for conv in (once.query_conv, once.key_conv, once.value_conv)
            )
            tokens = once.gamma.scale * masked_attention(*parts, mask) + tokens
        return tokens.view_as(x)

    assert_equals_dense(attention, maps(height, width), expected)


def test_criss_cross_begins_as_the_identity():
    # The authors' factor of the attended values is 0 at first.
    x = maps(5, 6).float()
    assert torch.equal(CrissCrossAttention(DIM)(x), x)
