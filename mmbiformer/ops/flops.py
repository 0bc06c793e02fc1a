"""What the operators of ``library.py`` cost, for PyTorch's FlopCounterMode."""

from math import ceil, prod

import torch
from torch.utils.flop_counter import register_flop_formula

from . import library  # noqa: F401 (registers the operators)


def _products(q_shape: torch.Size, v_shape: torch.Size, indices_shape: torch.Size) -> list[int]:
    """Every real query times the keys, padding included, of its regions; weights times values."""
    num_queries = prod(q_shape[:3])
    _, num_regions, topk = indices_shape
    s = round(num_regions**0.5)
    keys = topk * ceil(v_shape[1] / s) * ceil(v_shape[2] / s)
    return [2 * num_queries * keys * shape[3] for shape in (q_shape, v_shape)]


@register_flop_formula(torch.ops.mmbiformer.routed_attention)
def _forward(q_shape, k_shape, v_shape, indices_shape, *args, **kwargs) -> int:
    return sum(_products(q_shape, v_shape, indices_shape))


@register_flop_formula(torch.ops.mmbiformer.routed_attention_backward)
def _backward(grad, out, kept, q_shape, k_shape, v_shape, indices_shape, *args, **kwargs) -> int:
    logits, out = _products(q_shape, v_shape, indices_shape)
    return 3 * logits + 2 * out  # the logits again, and two for each product
