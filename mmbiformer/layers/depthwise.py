"""Depthwise convolutions of channels-last maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbiformer.cpp import depthwise_conv as cpp
from mmbiformer.ops.any_size import crop, is_compiling, pad_to_regions
from mmbiformer.ops.regions import region_size
from mmbiformer.ops.routed_attention import cast_by_autocast

from .casting import cast_parameters
from .fused_checks import (
    fusing_problem,
    hook_problem,
    is_depthwise,
    is_eager_on_cpu,
    log_unfused,
    transform_problem,
)
from .maps import add_into, to_channels_first, to_channels_last

FAST_COLUMNS = 3  # oneDNN's gradient of the weight is fast for kernels up to so wide
PLACES_PER_SUM = 512  # more would be rounded more, fewer would take longer
SMALL_MAP = 1 << 16  # up to so many values, PyTorch's own gradients are as fast or faster


def depthwise_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a depthwise convolution of stride 1 to a map (B, H, W, C); keeps its size."""
    if _is_for_cpp(conv, x):
        return cpp.depthwise_conv(x, *cast_parameters(conv))
    return _convolve_in_pytorch(conv, x)


def add_depthwise_conv(
    total: Tensor,
    conv: nn.Conv2d,
    x: Tensor,
    pad: Tensor | None = None,
    partition_factor: int = 1,
) -> Tensor:
    """``total`` + the convolution of a map that is padded until S divides its height and width.

    Args:
        total (Tensor): Map (B, H, W, C). If it is not ``x``, it may be overwritten, as
            :func:`add_into` does.
        conv (nn.Conv2d): Depthwise, of stride 1.
        x (Tensor): Map (B, H, W, C).
        pad (Tensor, optional): Every token of the padding, (C, ). Zeros where not given.
        partition_factor (int): S.
    """
    height, width = x.shape[1:3]
    if is_eager_on_cpu(x) and torch.is_autocast_enabled('cpu'):
        x = x.to(total.dtype)
    if total.dtype == x.dtype and _is_for_cpp(conv, x):
        padding = None
        if pad is not None:
            h, w = region_size(height, width, partition_factor)
            padding = cpp.Padding(pad.to(x.dtype), partition_factor * h, partition_factor * w)
        may_overwrite = not torch.is_grad_enabled() and total is not x and total.is_contiguous()
        out = total if may_overwrite else None
        return cpp.depthwise_conv(x, *cast_parameters(conv), total, padding, out)
    padded = x
    if pad is not None:  # as much of it as the kernel reaches
        padded = pad_to_regions(x, partition_factor, pad, reach=conv.kernel_size[0] // 2)
    out = crop(_convolve_in_pytorch(conv, padded), height, width)
    return add_into(out, total) if total is x else add_into(total, out)


def _is_for_cpp(conv: nn.Conv2d, x: Tensor) -> bool:
    if not is_eager_on_cpu(x) or not _is_plain(conv) or transform_problem() is not None:
        return False
    # Under autocast it computes in the map's dtype, by parameters in that of autocast.
    if conv.weight.dtype != x.dtype and not torch.is_autocast_enabled('cpu'):
        return False
    return cpp.problem(x, conv.weight) is None


def _convolve_in_pytorch(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if is_compiling() and _is_plain(conv):
        return _convolve(cast_by_autocast(x), *cast_parameters(conv))
    is_slow = torch.is_grad_enabled() and conv.kernel_size[1] > FAST_COLUMNS
    if is_slow and is_eager_on_cpu(x) and not torch.is_autocast_enabled('cpu'):
        reach = conv.kernel_size[0] // 2
        on_padding = [max(reach + 1 - size, 0) for size in x.shape[1:3]]
        if x.numel() > SMALL_MAP or any(on_padding):
            problem = fusing_problem(x, {'it': conv})
            if problem is None and x.numel() > SMALL_MAP:
                return _convolve(x, conv.weight, conv.bias)
            if problem is None:
                return _convolve_small(conv, x, on_padding)
            log_unfused('a depthwise convolution', problem)
    return to_channels_last(conv(to_channels_first(x)))


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether an operator may stand in for it."""
    return type(conv) is nn.Conv2d and hook_problem(conv) is None and is_depthwise(conv)


def _convolve_small(conv: nn.Conv2d, x: Tensor, on_padding: list[int]) -> Tensor:
    """``on_padding``: how many outer rows and columns of the kernel never meet the map."""
    # Without them: 1024 channels of one place and a kernel of 5 x 5 take 0.3 ms, not 0.7 to 9.
    rows, columns = on_padding
    size = conv.kernel_size[0]
    weight = conv.weight[..., rows : size - rows, columns : size - columns]
    padding = [size // 2 - rows, size // 2 - columns]
    x = to_channels_first(x)
    out = F.conv2d(x, weight, conv.bias, padding=padding, groups=len(weight))
    return to_channels_last(out)


# As operators, because compilers would bind a program to the size that they first met: Inductor of
# torch 2.13 makes constants of the strides that it asks a convolution's gradient for.
@torch.library.custom_op(
    'mmbiformer::depthwise_conv',
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor? bias) -> Tensor',
)
def _convolve(x, weight, bias):
    if x.dtype == weight.dtype and cpp.problem(x, weight) is None:
        return cpp.depthwise_conv(x, weight, bias, out=x.new_empty(x.shape))
    x = to_channels_first(x)
    out = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))
    return to_channels_last(out).contiguous()


@_convolve.register_fake
def _(x, weight, bias):
    return x.new_empty(x.shape)


@torch.library.custom_op(
    'mmbiformer::depthwise_conv_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor x, Tensor weight, bool[] wanted) -> (Tensor, Tensor, Tensor)',
)
def _convolve_backward(grad, x, weight, wanted):
    grads = [grad.new_empty(0) for _ in wanted]
    if x.dtype == weight.dtype and cpp.problem(x, weight) is None:
        if wanted[0]:
            grads[0], _ = cpp.map_grads(x, None, grad, weight, None)
        if wanted[1] or wanted[2]:
            of_weight, of_bias = cpp.weight_grads(x, None, grad, weight)
            grads[1] = of_weight if wanted[1] else grads[1]
            grads[2] = of_bias.to(weight.dtype) if wanted[2] else grads[2]
        return tuple(grads)
    reach, size = weight.shape[-1] // 2, x.numel()
    grad, x = (to_channels_first(y.contiguous()) for y in (grad, x))
    if wanted[0]:
        grads[0] = to_channels_last(_convolution_backward(grad, x, weight, reach, 0)).contiguous()
    if wanted[1]:
        is_slow = x.device.type == 'cpu' and weight.shape[-1] > FAST_COLUMNS and size > SMALL_MAP
        grads[1] = (
            _weight_grad(grad, F.pad(x, [reach] * 4), weight)
            if is_slow
            else _convolution_backward(grad, x, weight, reach, 1)
        )
    if wanted[2]:
        grads[2] = grad.sum((0, 2, 3))
    return tuple(grads)


@_convolve_backward.register_fake
def _(grad, x, weight, wanted):
    shapes = x.shape, weight.shape, weight.shape[:1]
    return tuple(
        grad.new_empty(shape if is_wanted else 0)
        for shape, is_wanted in zip(shapes, wanted, strict=True)
    )


def _setup_context(ctx, inputs, output) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    wanted = list(ctx.needs_input_grad)
    grads = _convolve_backward(grad, *ctx.saved_tensors, wanted)
    return tuple(x if is_wanted else None for x, is_wanted in zip(grads, wanted, strict=True))


_convolve.register_autograd(_backward, setup_context=_setup_context)


def _weight_grad(grad: Tensor, padded: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weight; on CPUs in some 17 ms where PyTorch takes 40 (200 x 336 x 64).

    oneDNN is that slow for kernels of more than three columns, so the columns are computed in
    strips of three. For those it sums all places of the map into one number, so the map is
    computed in bands of rows, whose sums are rounded less.
    """
    total = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    size = weight.shape[-1]
    height, width = grad.shape[2:]
    rows = max(3, PLACES_PER_SUM // width)
    for top in range(0, height, rows):
        band = grad[:, :, top : top + rows]
        source = padded[:, :, top : top + band.shape[2] + size - 1]
        for left in range(0, size, FAST_COLUMNS):
            columns = slice(left, left + FAST_COLUMNS)
            strip = weight[..., columns]
            part = source[..., left : left + width + strip.shape[-1] - 1]
            total[..., columns] += _convolution_backward(band, part, strip, 0, 1)
    return total.to(weight.dtype)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: int
) -> Tensor:
    """Gradient of the input (``wanted`` 0) or the weight (1) of a depthwise convolution."""
    mask = [wanted == i for i in range(3)]
    grads = torch.ops.aten.convolution_backward(
        *(grad, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], len(weight), mask)
    )
    return grads[wanted]
