"""What the operators of ``library.py`` cost, for PyTorch's FlopCounterMode."""

from math import ceil

import torch
from torch.utils.flop_counter import register_flop_formula

from . import library  # noqa: F401 (registers the operators)


def _product(q_shape: torch.Size, indices_shape: torch.Size) -> int:
    """One product of every real query with the keys, padding included, of its regions."""
    batch, height, width, channels = q_shape
    _, num_regions, topk = indices_shape
    s = round(num_regions**0.5)
    keys = topk * ceil(height / s) * ceil(width / s)
    return 2 * batch * height * width * keys * channels


@register_flop_formula(torch.ops.mmbiformer.routed_attention)
def _forward(q_shape, k_shape, v_shape, indices_shape, *args, **kwargs) -> int:
    return 2 * _product(q_shape, indices_shape)


@register_flop_formula(torch.ops.mmbiformer.routed_attention_backward)
def _backward(grad, out, kept, q_shape, k_shape, v_shape, indices_shape, *args, **kwargs) -> int:
    return 5 * _product(q_shape, indices_shape)  # the logits again, and two for each product
