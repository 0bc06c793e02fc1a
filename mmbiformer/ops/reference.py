"""Token-to-token attention, the plain way: the ground truth of every other backend.

It gathers keys and values through an expanded view and materialises the softmax, as the official
code does, so it is also the yardstick for speed.
"""

import torch
from torch import Tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, real: Tensor | None
) -> Tensor:
    """Every token attends to all tokens of its region's chosen regions (paper, equation 5).

    Args:
        q, k, v (Tensor): (B, R, T, N, D) for N heads of D channels.
        indices (Tensor): int64, (B, R, K).
        scale (float): Softmax scale.
        real (Tensor, optional): bool, (R, T); keys where it is false take no part.

    Returns:
        Tensor: (B, R, T, N, D).
    """
    batch, regions, tokens, heads, dim = q.shape
    topk = indices.shape[-1]
    index = indices.view(batch, regions, topk, 1, 1, 1)

    def gather(x: Tensor) -> Tensor:
        x = x.unsqueeze(1).expand(-1, regions, -1, -1, -1, -1)
        x = x.gather(2, index.expand(-1, -1, -1, tokens, heads, dim))
        return x.flatten(2, 3).transpose(2, 3)  # (B, R, N, K * T, D)

    logits = (q.transpose(2, 3) * scale) @ gather(k).transpose(-1, -2)
    if real is not None:
        logits = logits.masked_fill(~real[indices].flatten(2)[:, :, None, None], float('-inf'))
    out = torch.softmax(logits, dim=-1) @ gather(v)
    return out.transpose(2, 3)
