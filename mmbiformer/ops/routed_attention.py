"""The public op: checks its arguments, cuts the maps into regions, calls a backend."""

from torch import Tensor

from . import gathered, reference
from .regions import from_regions, pad_to_regions, real_tokens, region_size, to_regions

BACKENDS = {'reference': reference.attend, 'gathered': gathered.attend}


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
    backend: str = 'gathered',
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
        indices (Tensor): int64 region numbers, (B, S * S, K); see :func:`routing_indices`.
        partition_factor (int): S.
        num_heads (int): Number of heads; divides C.
        scale (float): Softmax scale.
        pad_key (Tensor, optional): Key of a padding token, (C, ).
        pad_value (Tensor, optional): Value of a padding token, (C, ). Both or none.
        backend (str): 'gathered' (fast) or 'reference' (plain).

    Returns:
        Tensor: (B, H, W, C).

    Raises:
        ValueError: If a shape does not fit, only one pad vector is given, or the backend is
            unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend '{backend}' is unknown: choose from {', '.join(BACKENDS)}")
    if not q.ndim == 4 or not q.shape == k.shape == v.shape:
        raise ValueError(
            f'q, k and v must have one shape (B, H, W, C), '
            f'got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    batch, height, width, channels = q.shape
    s = partition_factor
    if indices.ndim != 3 or indices.shape[:2] != (batch, s * s):
        raise ValueError(
            f'indices must have shape (B, S * S, K) = ({batch}, {s * s}, K) '
            f'for partition_factor={s}, got {tuple(indices.shape)}'
        )
    if channels % num_heads:
        raise ValueError(f'num_heads={num_heads} does not divide the {channels} channels')
    if (pad_key is None) != (pad_value is None):
        raise ValueError('pad_key and pad_value go together: give both or none')

    def split(x: Tensor, pad: Tensor | None = None) -> Tensor:
        x = to_regions(pad_to_regions(x, s, pad), s)
        return x.unflatten(-1, (num_heads, channels // num_heads))

    h, w = region_size(height, width, s)
    is_padded = (height, width) != (h * s, w * s)
    masked = is_padded and pad_key is None
    real = real_tokens(height, width, s, q.device) if masked else None
    out = BACKENDS[backend](split(q), split(k, pad_key), split(v, pad_value), indices, scale, real)
    return from_regions(out.flatten(-2), height, width, s)
