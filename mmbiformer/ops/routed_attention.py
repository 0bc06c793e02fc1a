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
    backend: str = 'auto',
) -> Tensor:
    """Token-to-token attention of bi-level routing attention (paper, section 3.2).

    The map is cut into S x S regions, and every token attends to all tokens of the regions that
    ``indices`` lists for its own region. Where S does not divide the map, the last regions hold
    padding: with ``pad_key`` and ``pad_value`` it takes part as tokens of that key and value (the
    released models need this), without them it takes no part.

    Args:
        q (Tensor): Queries, (B, H, W, C), channels last.
        k, v (Tensor): Keys and values, same shape and dtype.
        indices (Tensor): int64 region numbers from 0 to S * S - 1, which is not checked,
            (B, S * S, K); see :func:`routing_indices`. Without pads every region with a real token
            needs one with real tokens among its K: a softmax over nothing is nan.
        partition_factor (int): S.
        num_heads (int): Number of heads; divides C.
        scale (float): Softmax scale.
        pad_key, pad_value (Tensor, optional): Key and value of a padding token, (C, ) each. Both
            or none.
        backend (str): 'reference' is plain and keeps everything for the backward pass; 'chunked'
            is PyTorch in cache-sized chunks; 'triton' is fused, for CUDA, and has not been proven
            on a GPU. 'auto' takes what the environment variable MMBIFORMER_ATTENTION_BACKEND
            named when this package was imported, else 'chunked', and logs it once. Under
            ``torch.export`` and ``torch.jit.trace`` PyTorch's own operators are taken, whatever
            the backend.

    Returns:
        Tensor: (B, H, W, C); under autocast in its dtype.

    Raises:
        ValueError: If a shape does not fit, only one pad vector is given, or the backend is
            unknown or cannot run.
    """
    tensors = (_autocast(x) for x in (q, k, v))
    inputs = Inputs(*tensors, indices, pad_key, pad_value, partition_factor, num_heads, scale)
    inputs = _check(inputs)
    return run(choose(backend, inputs), inputs)


def _check(inputs: Inputs) -> Inputs:
    """Check the inputs; return them with pads in the maps' dtype, which autocast may narrow."""
    q, k, v, indices, pad_key, pad_value, s, num_heads, _ = inputs
    if not q.ndim == 4 or not q.shape == k.shape == v.shape:
        raise ValueError(
            f'q, k and v must have one shape (B, H, W, C), '
            f'got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError(
            f'q, k and v must have one dtype and device, got {q.dtype} on {q.device}, '
            f'{k.dtype} on {k.device} and {v.dtype} on {v.device}'
        )
    batch, _, _, channels = q.shape
    if s < 1:
        raise ValueError(f'partition_factor={s} must be at least 1')
    if indices.ndim != 3 or indices.shape[:2] != (batch, s * s):
        raise ValueError(
            f'indices must have shape (B, S * S, K) = ({batch}, {s * s}, K) '
            f'for partition_factor={s}, got {tuple(indices.shape)}'
        )
    if indices.dtype != torch.int64:
        raise ValueError(f'indices must be int64, got {indices.dtype}: convert them by .long()')
    if channels % num_heads:
        raise ValueError(f'num_heads={num_heads} does not divide the {channels} channels')
    if (pad_key is None) != (pad_value is None):
        raise ValueError('pad_key and pad_value go together: give both or none')
    if pad_key is None:
        return inputs
    if not pad_key.shape == pad_value.shape == (channels,):
        raise ValueError(
            f'pad_key and pad_value must have shape (C, ) = ({channels},), '
            f'got {tuple(pad_key.shape)} and {tuple(pad_value.shape)}'
        )
    return inputs._replace(pad_key=pad_key.to(k.dtype), pad_value=pad_value.to(v.dtype))


def _autocast(x: Tensor) -> Tensor:
    """What autocast makes of an input of a matrix product: backends would else differ in it."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x
    return x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))
