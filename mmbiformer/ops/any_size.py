"""Geometry that works while a program is recorded for maps of any size.

Exporters, tracers and compilers record a computation on one map and repeat it on others. A
recorded program that depends on how large the map was, or how much padding it had, fits no other
map. So each function here has a form that serves any size, and a faster one for a size that is
known. PyTorch is asked in this file alone whether a program is being recorded.

Shape letters as in ``regions.py``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .inputs import Inputs
from .regions import bands, real_tokens, region_size, to_regions


def is_exporting() -> bool:
    """Whether the computation is recorded to run elsewhere, by torch.export or torch.jit.trace."""
    is_exporting = getattr(torch.compiler, 'is_exporting', None)  # new in torch 2.7
    return torch.jit.is_tracing() or (is_exporting is not None and is_exporting())


def is_recorded() -> bool:
    """Whether the computation is recorded by an exporter or by ``torch.compile``."""
    return is_exporting() or torch.compiler.is_compiling()


def is_on_cpu(x: Tensor) -> bool:
    """Whether passes over a map cost, elsewhere launches do."""
    return x.device.type == 'cpu'


def is_compiling() -> bool:
    """Whether ``torch.compile`` records it, which knows operators of ours."""
    return torch.compiler.is_compiling() and not is_exporting()


def pad_to_regions(
    x: Tensor, partition_factor: int, fill: Tensor | None = None, reach: int | None = None
) -> Tensor:
    """Pad a map (B, H, W, C) at the bottom and on the right until S divides height and width.

    Args:
        fill (Tensor, optional): The padding token, (C, ). Zeros where not given.
        reach (int, optional): How many rows and columns of padding are needed, as by a convolution
            that sees no further. There may be more, and rows and columns of zeros behind them.
            All are needed where it is not given.

    Returns:
        Tensor: The padded map; ``x`` itself where nothing is added and the size is known.
    """
    batch, height, width, channels = x.shape
    h, w = region_size(height, width, partition_factor)
    padded_height, padded_width = h * partition_factor, w * partition_factor
    if is_exporting():
        # ``index_select`` reads the last row or column for each that is missing, and ``where``
        # overwrites it.
        row = torch.arange(padded_height, device=x.device)
        column = torch.arange(padded_width, device=x.device)
        x = x.index_select(1, row.clamp(max=height - 1))
        x = x.index_select(2, column.clamp(max=width - 1))
        real = _is_within(x, height, width)
        return torch.where(real, x, 0 if fill is None else fill.to(x.dtype))
    bottom, right = padded_height - height, padded_width - width
    if is_recorded():  # by a compiler, whose graph would be bound to a branch
        if reach is not None:  # a minimum would be in strides, which Inductor could not order
            bottom = right = min(reach, partition_factor - 1)
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        if fill is None:
            return x
        is_padding = _is_within(x, padded_height, padded_width) & ~_is_within(x, height, width)
        return torch.where(is_padding, fill.to(x.dtype), x)
    if reach is not None:
        bottom, right = min(bottom, reach), min(right, reach)
    if not bottom and not right:
        return x
    if fill is None:
        return F.pad(x, (0, 0, 0, right, 0, bottom))
    fill = fill.to(x.dtype)
    if right:
        x = torch.cat([x, fill.expand(batch, height, right, channels)], dim=2)
    if bottom:
        x = torch.cat([x, fill.expand(batch, bottom, width + right, channels)], dim=1)
    return x


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left part of a map (B, H, W, C): a view where the size is known."""
    if is_exporting():  # whether a view has gaps in memory depends on how much padding there is
        row = torch.arange(height, device=x.device)
        return x.index_select(1, row).index_select(2, torch.arange(width, device=x.device))
    if is_recorded():  # a compiler asks whether a view has gaps, but not of a copy without padding
        return F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
    return x[:, :height, :width]


def _is_within(x: Tensor, height: int, width: int) -> Tensor:
    """Which tokens of a map (B, H, W, C) are in its upper left part: a mask (H, W, 1)."""
    row = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
    return (row < height) & (torch.arange(x.shape[2], device=x.device).view(-1, 1) < width)


def from_regions(x: Tensor, height: int, width: int, partition_factor: int) -> Tensor:
    """Join regions (B, R, T, C), as ``to_regions`` cuts them, without padding: (B, H, W, C)."""
    s = partition_factor
    x = x.unflatten(2, region_size(height, width, s)).unflatten(1, (s, s)).transpose(2, 3)
    return crop(x.flatten(3, 4).flatten(1, 2), height, width)


def region_averages(x: Tensor, partition_factor: int, dtype: torch.dtype) -> Tensor:
    """Average over each region of a map (B, H, W, C), padding as zeros: (B, R, C) in ``dtype``."""
    s, (batch, height, width, channels) = partition_factor, x.shape
    h, w = region_size(height, width, s)
    if is_recorded() or not is_on_cpu(x):  # on GPUs for its few launches
        x = pad_to_regions(x, s).unflatten(1, (s, h)).unflatten(3, (s, w))
        return x.mean((2, 4), dtype=dtype).flatten(1, 2)
    sums = x.new_zeros(batch, s, s, channels, dtype=dtype)
    for ys, row, tokens_high in bands(height, h):
        for xs, column, tokens_wide in bands(width, w):
            part = x[:, ys, xs].unflatten(1, (-1, tokens_high)).unflatten(3, (-1, tokens_wide))
            # One axis after the other: PyTorch sums over both at once a good deal slower.
            sums[:, row, column] = part.sum(4, dtype=dtype).sum(2)
    return sums.flatten(1, 2) / (h * w)


def attend_in_regions(attend: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Cut maps into regions, padding included, ``attend`` in these, and join them."""
    s, num_heads, keys = inputs.partition_factor, inputs.num_heads, inputs.key_partition

    def split(x: Tensor, pad: Tensor | None = None) -> Tensor:
        return to_regions(pad_to_regions(x, s, pad), s).unflatten(-1, (num_heads, -1))

    real = None
    if inputs.pad_key is None and (is_recorded() or keys.is_padded):
        real = real_tokens(keys.height, keys.width, s, inputs.q.device)
    out = attend(
        split(inputs.q),
        split(inputs.k, inputs.pad_key),
        split(inputs.v, inputs.pad_value),
        inputs.indices,
        inputs.scale,
        real,
        inputs.routing_weights,
    )
    return from_regions(out.flatten(-2), *inputs.q.shape[1:3], s)
