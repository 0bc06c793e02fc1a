"""Routed attention in operators that every exporter knows: for ``torch.export``, ONNX and tracing.

Regions are gathered by ``index_select`` and attended to by PyTorch's fused attention. Slower than
the chunked backend, but without an operator of our own and without loops over the batch or map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def is_exporting() -> bool:
    """Whether the computation is recorded, to run elsewhere or to be counted."""
    is_exporting = getattr(torch.compiler, 'is_exporting', None)  # new in torch 2.7
    return torch.jit.is_tracing() or (is_exporting is not None and is_exporting())


def attend(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, real: Tensor | None
) -> Tensor:
    """As :func:`mmbiformer.ops.reference.attend`."""
    batch, regions, _, heads, dim = q.shape
    first = torch.arange(0, batch * regions, regions, device=q.device).view(batch, 1, 1)
    rows = (indices + first).flatten()

    def gather(x: Tensor) -> Tensor:
        x = x.flatten(0, 1).index_select(0, rows)
        return x.view(batch * regions, -1, heads, dim).transpose(1, 2)  # (B * R, N, K * T, D)

    mask = None if real is None else real[indices].view(batch * regions, 1, 1, -1)
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1).transpose(1, 2), gather(k), gather(v), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).unflatten(0, (batch, regions))
