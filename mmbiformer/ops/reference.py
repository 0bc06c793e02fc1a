"""Token-to-token attention, the plain way: the ground truth of every other backend.

It gathers keys and values through an expanded view and materialises the softmax, as the official
code does, so it is also the yardstick for speed.
"""

import torch
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    indices: Tensor,
    scale: float,
    real: Tensor | None = None,
    routing_weights: Tensor | None = None,
) -> Tensor:
    """Every token attends to all tokens of its region's chosen regions (paper, equation 5).

    Args:
        q, k, v (Tensor): (B, R, T, N, D) for N heads of D channels; T may be another for keys and
            values than for queries, and D another for values.
        indices (Tensor): int64, (B, R, K).
        scale (float): Softmax scale.
        real (Tensor, optional): bool, (R, T); keys where it is false take no part.
        routing_weights (Tensor, optional): Factors of the gathered keys and values, (B, R, K).

    Returns:
        Tensor: (B, R, T, N, D), T of the queries and D of the values.
    """
    batch, regions, topk = indices.shape
    index = indices.view(batch, regions, topk, 1, 1, 1)

    def gather(x: Tensor) -> Tensor:
        expanded = x.unsqueeze(1).expand(-1, regions, -1, -1, -1, -1)
        x = expanded.gather(2, index.expand(-1, -1, -1, *x.shape[2:]))
        if routing_weights is not None:
            x = x * routing_weights.view(index.shape)
        return x.flatten(2, 3).transpose(2, 3)  # (B, R, N, K * T, D)

    logits = (q.transpose(2, 3) * scale) @ gather(k).transpose(-1, -2)
    if real is not None:
        logits = logits.masked_fill(~real[indices].flatten(2)[:, :, None, None], float('-inf'))
    out = torch.softmax(logits, dim=-1) @ gather(v)
    return out.transpose(2, 3)
