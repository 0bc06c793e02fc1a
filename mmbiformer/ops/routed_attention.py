"""The public op: checks its arguments, chooses a backend and runs it."""

import torch
from torch import Tensor

from .backends import choose
from .inputs import Inputs
from .library import run


def routed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    indices: Tensor,
    *,
    partition_factor: int,
    num_heads: int,
    scale: float,
    pad_key: Tensor | None = None,
    pad_value: Tensor | None = None,
    routing_weights: Tensor | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Token-to-token attention of bi-level routing attention (paper, section 3.2).

    The map is cut into S x S regions, and every token attends to all tokens of the regions that
    ``indices`` lists for its own region. Where S does not divide the map, the last regions hold
    padding: with ``pad_key`` and ``pad_value`` it takes part as tokens of that key and value (the
    released models need this), without them it takes no part.

    Args:
        q (Tensor): Queries, (B, H, W, C), channels last.
        k, v (Tensor): Keys and values of the same dtype, mostly of the same shape. A map of keys
            and values may have another size, as where those of a region were pooled: it is cut
            into S x S regions of its own. Values may have another width.
        indices (Tensor): int64 region numbers from 0 to S * S - 1, which is not checked,
            (B, S * S, K); see :func:`routing_indices`. Without pads every region with a real token
            needs one with real tokens among its K: a softmax over nothing is nan.
        partition_factor (int): S.
        num_heads (int): Number of heads; divides the widths.
        scale (float): Softmax scale.
        pad_key, pad_value (Tensor, optional): Key and value of a padding token, (C, ) each. Both
            or none.
        routing_weights (Tensor, optional): What the keys and values of each listed region are
            multiplied by, (B, S * S, K): soft routing. They are differentiated.
        backend (str): 'reference' is plain and keeps everything for the backward pass; 'chunked'
            is PyTorch in cache-sized chunks; 'cpp' is compiled for this CPU, where there is a C++
            compiler, and computes float32; 'triton' is fused, for CUDA, and runs where its
            kernels have passed their check (``kernel_check.py``); 'flex' is PyTorch's own
            block-sparse kernel, on CPUs without a backward pass. 'auto' takes what the
            environment variable MMBIFORMER_ATTENTION_BACKEND named when this package was
            imported; else 'triton' or 'cpp' where it runs, else 'chunked'; and logs it once. Under
            ``torch.export`` and ``torch.jit.trace`` PyTorch's own operators are taken, whatever
            the backend.

    Returns:
        Tensor: (B, H, W, C), as wide as v; under autocast in its dtype.

    Raises:
        ValueError: If a shape does not fit, only one pad vector is given, or the backend is
            unknown or cannot run.
    """
    maps, pads = (cast_by_autocast(x) for x in (q, k, v)), (pad_key, pad_value)
    settings = partition_factor, num_heads, scale
    inputs = _check(Inputs(*maps, indices, *pads, *settings, routing_weights))
    return run(choose(backend, inputs), inputs)


def _check(inputs: Inputs) -> Inputs:
    """Check the inputs; return all in the maps' dtype, which autocast may narrow."""
    q, k, v, indices, pad_key, pad_value, s, num_heads, _, weights = inputs
    fits = q.ndim == k.ndim == v.ndim == 4 and q.shape[::3] == k.shape[::3]
    if not fits or k.shape[:3] != v.shape[:3]:
        raise ValueError(
            'q, k and v must be maps (B, H, W, C) of one batch, q and k of one width, k and v of '
            f'one size, got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError(
            f'q, k and v must have one dtype and device, got {q.dtype} on {q.device}, '
            f'{k.dtype} on {k.device} and {v.dtype} on {v.device}'
        )
    batch = q.shape[0]
    if s < 1:
        raise ValueError(f'partition_factor={s} must be at least 1')
    if indices.ndim != 3 or indices.shape[:2] != (batch, s * s):
        raise ValueError(
            f'indices must have shape (B, S * S, K) = ({batch}, {s * s}, K) '
            f'for partition_factor={s}, got {tuple(indices.shape)}'
        )
    if indices.dtype != torch.int64:
        raise ValueError(f'indices must be int64, got {indices.dtype}: convert them by .long()')
    for channels in (k.shape[3], v.shape[3]):
        if channels % num_heads:
            raise ValueError(f'num_heads={num_heads} does not divide the {channels} channels')
    if weights is not None:
        if weights.shape != indices.shape:
            raise ValueError(
                f'routing_weights must have the shape of indices, {tuple(indices.shape)}, '
                f'got {tuple(weights.shape)}'
            )
        inputs = inputs._replace(routing_weights=weights.to(k.dtype))
    if (pad_key is None) != (pad_value is None):
        raise ValueError('pad_key and pad_value go together: give both or none')
    if pad_key is None:
        return inputs
    if (pad_key.shape, pad_value.shape) != (k.shape[3:], v.shape[3:]):
        raise ValueError(
            f'pad_key and pad_value must have shape (C, ) of k and of v, ({k.shape[3]},) and '
            f'({v.shape[3]},), got {tuple(pad_key.shape)} and {tuple(pad_value.shape)}'
        )
    return inputs._replace(pad_key=pad_key.to(k.dtype), pad_value=pad_value.to(v.dtype))


def cast_by_autocast(x: Tensor) -> Tensor:
    """What autocast makes of an input of a matrix product: backends would else differ in it."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x
    return x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))
