"""Routed attention by PyTorch's own block-sparse kernel, ``flex_attention``.

A region is a block there, and the routing indices are the lists of blocks that its mask wants. The
kernels are compiled from templates of PyTorch, which many run on GPUs. Their price: the T tokens
of a region become a multiple of 128.

Shape letters as in ``regions.py``; N heads of D channels, K routed regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .inputs import Inputs

TILE = 128  # tokens; all tiles that the templates choose by themselves divide it
HEAD_DIM = 16  # at least so wide are the products of GPUs
DTYPES = torch.float32, torch.float16, torch.bfloat16
TORCH = '2.13'  # the first whose ``torch.compile`` has a limit of its own for a function


def problem(inputs: Inputs) -> str | None:
    """Why this backend cannot run on inputs, in a few words; None where it can."""
    if torch.__version__ < TORCH:
        return f'it needs torch {TORCH} or newer, torch {torch.__version__} is installed'
    if inputs.routing_weights is not None:
        return 'it has no routing weights'
    if inputs.q.dtype not in DTYPES:
        return f'it computes no {inputs.q.dtype}'
    if min(inputs.head_dim, inputs.v.shape[3] // inputs.num_heads) < HEAD_DIM:
        return f'a head has {inputs.head_dim} channels, and it needs {HEAD_DIM}'
    has_grad = any(x is not None and x.requires_grad for x in inputs.differentiable)
    if not inputs.q.is_cuda and has_grad and torch.is_grad_enabled():
        return 'PyTorch has no backward pass of flex_attention on CPUs'
    return None


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    indices: Tensor,
    scale: float,
    real: Tensor | None = None,
    routing_weights: None = None,
) -> Tensor:
    """As :func:`mmbiformer.ops.reference.attend`, without routing weights.

    In the backward pass a list that names a region twice would count it once.
    """
    from .flex_programs import attend_to_blocks  # PyTorch's compiler takes seconds to import

    num_regions = indices.shape[1]
    num_queries, num_keys = q.shape[2], k.shape[2]
    block = tuple(-(-tokens // TILE) * TILE for tokens in (num_queries, num_keys))
    is_key = None
    if real is not None or num_keys != block[1]:
        is_key = q.new_ones(num_regions, num_keys, dtype=torch.bool) if real is None else real
        is_key = F.pad(is_key, (0, block[1] - num_keys)).flatten()
    q, k, v = (_head_major(x) for x in (q, k, v))
    out = attend_to_blocks(q, k, v, indices.int(), block, is_key, scale)
    return out.unflatten(2, (num_regions, -1))[:, :, :, :num_queries].permute(0, 2, 3, 1, 4)


def _head_major(x: Tensor) -> Tensor:
    """(B, R, T, N, D) to (B, N, R * T', D), T' the next multiple of a tile; zeros are added."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[2] % TILE))
    return x.permute(0, 3, 1, 2, 4).flatten(2, 3)
