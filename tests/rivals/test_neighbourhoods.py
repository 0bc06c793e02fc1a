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
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer.rivals import CrissCrossAttention, SlidingWindowAttention, neighbourhood

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


@pytest.mark.parametrize('op', ['products', 'sums', 'shares'])
def test_operators(op):
    maps = torch.randn(2, 2, 3, 5, 2, 4, dtype=torch.float64)
    weights = torch.randn(2, 3, 5, 2, 49, dtype=torch.float64)
    args = tuple(maps) if op == 'products' else (weights, maps[0])
    if op != 'shares':  # which has no gradient: nobody needs a second derivative
        args = tuple(x.requires_grad_() for x in args)
    torch.library.opcheck(getattr(neighbourhood, op), args)


def test_counted_operations():
    attention = SlidingWindowAttention(DIM, HEADS)
    x = torch.randn(2, 5, 6, DIM, requires_grad=True)
    of_neighbours = 2 * x.numel() * 49
    with FlopCounterMode(display=False) as counter:
        out = attention(x)
    projections, embeddings = 2 * x.numel() * 3 * DIM // HEADS, 2 * x.numel() * 7
    assert counter.get_total_flops() == projections + embeddings + 2 * of_neighbours
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    counts = counter.get_flop_counts()['Global']
    ops = torch.ops.mmbiformer
    assert counts[ops.neighbour_products] == counts[ops.neighbour_sums] == of_neighbours
    assert counts[ops.neighbour_shares] == 2 * of_neighbours


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    attention = randomise(SlidingWindowAttention(DIM, HEADS)).float()
    x = maps(6, 9).float().requires_grad_()
    expected = attention(x)
    truth = torch.autograd.grad(expected.sum(), x)[0]
    with torch.autocast('cpu', dtype):
        out = attention(x)
    assert out.dtype == dtype
    grad = torch.autograd.grad(out.float().sum(), x)[0]
    for result, exact in ((out.float(), expected), (grad, truth)):
        assert (result - exact).norm() < 16 * torch.finfo(dtype).eps * exact.norm()
