"""Bi-level routing attention in plain loops over tokens, written from the paper alone.

Shares no code with ``mmbiformer.ops``: slow, and meant to be read.
"""

import numpy as np

# Height, width, S: what S divides, what it does not, regions of padding alone, less than S x S.
SIZES = {
    'divisible': (8, 4, 2),
    'partial regions': (7, 5, 3),
    'padding regions': (9, 5, 4),
    'one region': (3, 5, 1),
    'one row': (1, 7, 3),
    'smaller than S x S': (2, 3, 5),
    'one token': (1, 1, 3),
}


def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


def tokens_of_regions(height: int, width: int, s: int) -> list[list[tuple[int, int]]]:
    """The (y, x) of every token of every region, padding included, row by row."""
    h, w = ceil_div(height, s), ceil_div(width, s)
    return [
        [(row * h + y, column * w + x) for y in range(h) for x in range(w)]
        for row in range(s)
        for column in range(s)
    ]


def pad(x: np.ndarray, s: int, token: np.ndarray) -> np.ndarray:
    """Extend a map (H, W, C) at the bottom and on the right until S divides it."""
    height, width, channels = x.shape
    padded = np.empty((s * ceil_div(height, s), s * ceil_div(width, s), channels))
    padded[...] = token
    padded[:height, :width] = x
    return padded


def route(q: np.ndarray, k: np.ndarray, s: int, topk: int, real: tuple[int, int]) -> list[set]:
    """The regions that each region attends to.

    Args:
        q, k (ndarray): Padded maps (S * h, S * w, C).
        real (tuple): Height and width of what counts; regions without any of it are not chosen.

    Returns:
        list[set]: Per region; fewer than ``topk`` where fewer regions have anything real, and
            empty for a region that has nothing real itself.
    """
    regions = [
        [(y, x) for y, x in tokens if y < real[0] and x < real[1]]
        for tokens in tokens_of_regions(q.shape[0], q.shape[1], s)
    ]
    keys = {
        j: sum(k[t] for t in tokens) / len(tokens) for j, tokens in enumerate(regions) if tokens
    }
    chosen = []
    for tokens in regions:
        query = sum(q[t] for t in tokens)  # its mean has the same order
        ranked = sorted(keys, key=lambda j: -(query @ keys[j])) if tokens else []
        chosen.append(set(ranked[:topk]))
    return chosen


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    chosen: list[set],
    s: int,
    num_heads: int,
    scale: float,
    real: tuple[int, int],
) -> np.ndarray:
    """Every real token's attention to the real tokens of its region's chosen regions.

    Args:
        q, k, v (ndarray): Padded maps (S * h, S * w, C).

    Returns:
        ndarray: Padded map; zeros where nothing is real.
    """
    regions = tokens_of_regions(q.shape[0], q.shape[1], s)
    dim = q.shape[2] // num_heads
    out = np.zeros_like(v)
    for tokens, others in zip(regions, chosen, strict=True):
        keys = [(y, x) for j in others for y, x in regions[j] if y < real[0] and x < real[1]]
        for token in tokens:
            if token[0] >= real[0] or token[1] >= real[1]:
                continue
            for head in range(num_heads):
                part = slice(head * dim, (head + 1) * dim)
                weights = np.array(
                    [np.exp(scale * (q[token][part] @ k[key][part])) for key in keys]
                )
                values = np.array([v[key][part] for key in keys])
                out[token][part] = (weights / weights.sum()) @ values
    return out
