"""Layouts of feature maps, and their sums.

Convolutions, necks and heads take maps (B, C, H, W); layers of this package take channels-last
maps (B, H, W, C). A map whose memory is channels-last passes from one to the other as a view.
"""

import torch
from torch import Tensor

from mmbiformer.ops.any_size import is_exporting


def to_channels_last(x: Tensor) -> Tensor:
    """View a map (B, C, H, W) as (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """View a channels-last map (B, H, W, C) as (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def add_into(total: Tensor, part: Tensor) -> Tensor:
    """total + part. Where no gradient is recorded, ``total`` is overwritten by the sum.

    Fresh memory costs more than the addition. The caller must hold the only reference to
    ``total``; autograd may hold another, so that it is left alone where gradients are recorded.
    A recorded program is the same with and without gradients, which ``torch.jit.trace`` checks.
    """
    if torch.is_grad_enabled() or is_exporting():
        return total + part
    return total.add_(part)
