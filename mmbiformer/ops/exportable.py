"""Routed attention in operators that every exporter knows: for ``torch.export``, ONNX and tracing.

Regions are gathered by ``index_select`` and attended to by PyTorch's fused attention. It is slower
than the chunked backend, but has no operator of our own and no loop over the batch or the map.
"""

import torch
import torch.nn.functional as F
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
    """As :func:`mmbiformer.ops.reference.attend`."""
    batch, regions, _, heads, _ = q.shape
    first = torch.arange(0, batch * regions, regions, device=q.device).view(batch, 1, 1)
    routed = (indices + first).flatten()

    def gather(x: Tensor) -> Tensor:
        dim = x.shape[-1]
        x = x.flatten(0, 1).index_select(0, routed)
        if routing_weights is not None:
            x = x * routing_weights.view(-1, 1, 1, 1)
        return x.view(batch * regions, -1, heads, dim).transpose(1, 2)  # (B * R, N, K * T, D)

    mask = None if real is None else real[indices].view(batch * regions, 1, 1, -1)
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1).transpose(1, 2), gather(k), gather(v), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).unflatten(0, (batch, regions))
