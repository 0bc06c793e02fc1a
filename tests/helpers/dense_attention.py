"""Attention over all tokens of a map at once, where a mask says who sees whom, in float64."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# One token, a whole number of windows of 7 and stripes, none of either, and one row.
SIZES = [(1, 1), (7, 14), (9, 12), (15, 7), (1, 17), (16, 2)]


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | float = 0.0, scale: float = 1.0
) -> Tensor:
    """Softmax over the tokens that the mask lets a query see.

    Args:
        q, k, v (Tensor): (..., Q, D) and (..., K, D).
        mask (Tensor): Which keys a query sees, bool (Q, K).
        bias (Tensor): Added to the scaled products, (..., Q, K).
    """
    logits = scale * torch.einsum('...qd,...kd->...qk', q, k) + bias
    weights = torch.where(mask, (logits - logits.amax(-1, keepdim=True)).exp(), 0.0)
    return weights @ v / weights.sum(-1, keepdim=True)


def places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of each token, (T, )."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    return rows.flatten(), columns.flatten()


def pairs(of_token: Tensor) -> tuple[Tensor, Tensor]:
    """What a number of the query and one of the key are, to be compared: (T, 1) and (1, T)."""
    return of_token.unsqueeze(1), of_token.unsqueeze(0)


def same(*of_token: Tensor) -> Tensor:
    """Which tokens agree in all these numbers, bool (T, T)."""
    mask = torch.ones(len(of_token[0]), len(of_token[0]), dtype=torch.bool)
    for numbers in of_token:
        query, key = pairs(numbers)
        mask &= query == key
    return mask


def to_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, C) to (B, N, T, D)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def from_heads(x: Tensor) -> Tensor:
    """(B, N, T, D) to (B, T, C)."""
    return x.transpose(1, 2).flatten(2)


def assert_equals_dense(
    attention: nn.Module, x: Tensor, dense: Callable[[Tensor], Tensor], bound: float = 1e-10
) -> None:
    """The output and all gradients are those of a function of the map, to a part of the largest.

    ``dense`` computes with the attention's own parameters, so that gradients reach them.
    """
    x = x.clone().requires_grad_()
    inputs = [x, *attention.parameters()]
    out, expected = attention(x), dense(x)
    assert out.shape == x.shape
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    assert_near([out], [expected], bound)
    grads = torch.autograd.grad(out, inputs, grad)
    # A parameter may have no part in what one token gives.
    truth = torch.autograd.grad(expected, inputs, grad, allow_unused=True)
    assert_near(
        grads,
        [torch.zeros_like(y) if x is None else x for x, y in zip(truth, grads, strict=True)],
        bound,
    )


def assert_near(results: Iterable[Tensor], truths: Iterable[Tensor], bound: float) -> None:
    for result, truth in zip(results, truths, strict=True):
        assert (result - truth).abs().max() <= bound * max(1.0, truth.abs().max().item())
