"""The public op: checks its arguments and calls a backend."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import exportable, library, reference
from .backends import requested
from .inputs import Inputs
from .regions import Partition, from_regions, pad_to_regions, real_tokens, to_regions


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
        k (Tensor): Keys, same shape and dtype.
        v (Tensor): Values, same shape and dtype.
        indices (Tensor): int64 region numbers from 0 to S * S - 1, which is not checked,
            (B, S * S, K); see :func:`routing_indices`. Without pads every region with a real token
            needs one with real tokens among its K: a softmax over nothing is nan.
        partition_factor (int): S.
        num_heads (int): Number of heads; divides C.
        scale (float): Softmax scale.
        pad_key (Tensor, optional): Key of a padding token, (C, ).
        pad_value (Tensor, optional): Value of a padding token, (C, ). Both or none.
        backend (str): 'reference' is plain and keeps everything for the backward pass; 'chunked'
            is PyTorch in cache-sized pieces; 'triton' is fused, for CUDA. 'auto' takes what the
            environment variable MMBIFORMER_ATTENTION_BACKEND named when this package was
            imported, else the fastest that can run, and logs it once. Under ``torch.export`` and
            ``torch.jit.trace`` PyTorch's own operators are taken, whatever the backend.

    Returns:
        Tensor: (B, H, W, C); under autocast in its dtype.

    Raises:
        ValueError: If a shape does not fit, only one pad vector is given, or the backend is
            unknown or cannot run.
    """
    backend = requested(backend)
    if not q.ndim == 4 or not q.shape == k.shape == v.shape:
        raise ValueError(
            f'q, k and v must have one shape (B, H, W, C), '
            f'got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    q, k, v = (_autocast(x) for x in (q, k, v))
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError(
            f'q, k and v must have one dtype and device, got {q.dtype} on {q.device}, '
            f'{k.dtype} on {k.device} and {v.dtype} on {v.device}'
        )
    if partition_factor < 1:
        raise ValueError(f'partition_factor={partition_factor} must be at least 1')
    batch, channels, s = q.shape[0], q.shape[3], partition_factor
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
    if pad_key is not None:
        if not pad_key.shape == pad_value.shape == (channels,):
            raise ValueError(
                f'pad_key and pad_value must have shape (C, ) = ({channels},), '
                f'got {tuple(pad_key.shape)} and {tuple(pad_value.shape)}'
            )
        # Under autocast the maps are narrower than the pads.
        pad_key, pad_value = pad_key.to(k.dtype), pad_value.to(v.dtype)
    inputs = Inputs(q, k, v, indices, pad_key, pad_value, s, num_heads, scale)
    if exportable.is_exporting():
        return _in_regions(exportable.attend, inputs)
    if backend == 'reference':
        return _in_regions(reference.attend, inputs)
    return library.routed_attention(*inputs, backend)[0]


def _autocast(x: Tensor) -> Tensor:
    """What autocast makes of an input of a matrix product: backends would else differ in it."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x
    return x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))


def _in_regions(attend: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Cut whole maps into regions, padding included, attend and put them together again."""
    q, k, v, indices, pad_key, pad_value, s, num_heads, scale = inputs
    cut = Partition(*q.shape[:3], s)

    def split(x: Tensor, pad: Tensor | None = None) -> Tensor:
        return to_regions(pad_to_regions(x, s, pad), s).unflatten(-1, (num_heads, -1))

    # An exported program is for any size: it always masks.
    masked = pad_key is None and (exportable.is_exporting() or cut.is_padded)
    real = real_tokens(cut.height, cut.width, s, q.device) if masked else None
    out = attend(split(q), split(k, pad_key), split(v, pad_value), indices, scale, real)
    return from_regions(out.flatten(-2), cut.height, cut.width, s)
