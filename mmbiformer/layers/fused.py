"""What a block does besides attention, as its modules do it, with less memory traffic: for CPUs.

Rows of tokens are taken through several modules a few at a time, while they are in cache. Nothing
that a normalisation or an activation can give again is kept for the backward pass, and residuals
are added where the products are written. docs/performance.md has the measurements.

Shape letters: B batch, H and W height and width of the map, C channels, L = B * H * W tokens.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as module_hooks

# The widest rows of a chunk, of all threads together, stay in a core's share of the caches.
BYTES_PER_THREAD = 1 << 20


def is_lean(x: Tensor, *parts: nn.Module) -> bool:
    """Whether this file may stand in for modules on an input: on a CPU, without autocast.

    Modules that were replaced, wrapped, parametrised or hooked must run themselves; so must all
    under a compiler, which fuses better what it sees, and under torch.func and forward mode, which
    the functions of this file do not know.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and x.device.type == 'cpu'
        and not torch.is_autocast_enabled('cpu')
        and not module_hooks._has_any_global_hook()
        and all(_is_plain(part, x.dtype) for part in parts)
    )


def _is_plain(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a module is what ``BiFormerBlock`` builds, and nobody listens to it."""
    hooks = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'
    if 'forward' in vars(module) or any(getattr(module, name) for name in hooks):
        return False
    if module._compiled_call_impl is not None:
        return False
    parameters = filter(lambda p: p is not None, module._parameters.values())
    if any(type(p) is not nn.Parameter or p.dtype != dtype for p in parameters):
        return False
    kind = type(module)
    if kind in (nn.Linear, nn.LayerNorm):
        return module.bias is not None
    if kind is nn.GELU:
        return module.approximate == 'none'
    if kind is nn.Conv2d:
        size = module.kernel_size[0]
        return (
            module.kernel_size == (size, size)
            and module.padding == (size // 2, size // 2)
            and module.groups == module.in_channels == module.out_channels
            and module.stride == module.dilation == (1, 1)
            and module.padding_mode == 'zeros'
            and module.bias is not None
        )
    if kind is nn.Sequential:
        kinds = [type(part) for part in module]
        return kinds == [nn.Linear, nn.GELU, nn.Linear] and all(
            _is_plain(part, dtype) for part in module
        )
    return kind.__module__.startswith('mmbiformer.layers.')


def _chunks(x: Tensor, width: int) -> Iterator[slice]:
    """Cut rows (L, C), of which something ``width`` channels wide is made, into chunks."""
    budget = BYTES_PER_THREAD * torch.get_num_threads()
    length = max(1, budget // (width * x.element_size()))
    for start in range(0, len(x), length):
        yield slice(start, start + length)


def _rows(x: Tensor) -> Tensor:
    """View a map (B, H, W, C) as rows (L, C)."""
    return x.flatten(0, 2)


def _per_row(scale: Tensor | None, x: Tensor) -> Tensor | None:
    """Give each row of a map (B, H, W, C) its sample's factor: (B, ) to (L, 1)."""
    return None if scale is None else scale.repeat_interleave(x.shape[1] * x.shape[2]).unsqueeze(1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to a matrix in place, by the operator that FLOP counters know."""
    if total.dtype != a.dtype:
        return total.add_(a @ b)
    return torch.addmm(total, a, b, out=total)


def _totals(*parameters: Tensor) -> list[Tensor]:
    """Zeros to sum gradients of chunks in: float32 or wider."""
    return [
        torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in parameters
    ]


class _NormLinear(Function):
    """Linear map of a LayerNorm, cut into equal parts along the channels."""

    @staticmethod
    def forward(ctx, x, parts, eps, norm_weight, norm_bias, weight, bias):
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.eps = eps
        rows = _rows(x)
        out = rows.new_empty(len(rows), len(weight))
        for chunk in _chunks(rows, len(weight)):
            normed = F.layer_norm(rows[chunk], norm_weight.shape, norm_weight, norm_bias, eps)
            torch.addmm(bias, normed, weight.t(), out=out[chunk])
        return out.view(*x.shape[:3], len(weight)).chunk(parts, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        rows, grads = _rows(x), [_rows(grad) for grad in grads]
        grad_x = torch.empty_like(rows)
        grad_weight, grad_bias = _totals(weight, weight[:, 0])
        norm = _NormBackward(norm_weight, norm_bias, ctx.eps)
        for chunk in _chunks(rows, len(weight)):
            grad = torch.cat([part[chunk] for part in grads], dim=1)
            grad_bias += grad.sum(0, dtype=grad_bias.dtype)
            _add_product(grad_weight, grad.t(), norm.normed(rows[chunk]))
            grad_x[chunk] = norm.backward(grad @ weight)
        grads = (grad.to(weight.dtype) for grad in (*norm.grads, grad_weight, grad_bias))
        return grad_x.view_as(x), None, None, *grads


class _NormBackward:
    """LayerNorm of chunks of rows, computed again, and its gradients."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps
        self.grads = _totals(weight, bias)

    def normed(self, rows: Tensor) -> Tensor:
        self.rows = rows
        out, *self.statistics = torch.native_layer_norm(
            rows, self.weight.shape, self.weight, self.bias, self.eps
        )
        return out

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of the rows last normalised; adds to the gradients of weight and bias."""
        grad_rows, *grads = torch.ops.aten.native_layer_norm_backward(
            *(grad, self.rows, self.weight.shape, *self.statistics),
            *(self.weight, self.bias, [True] * 3),
        )
        for total, part in zip(self.grads, grads, strict=True):
            total += part
        return grad_rows


def _add_bias(out: Tensor, x: Tensor, scale: Tensor | None, bias: Tensor) -> None:
    """Write x + scale * bias, on rows, to ``out``, which may be ``x``."""
    if scale is None:
        torch.add(x, bias, out=out)
    else:
        torch.addcmul(x, scale, bias, out=out)


def _write_add_linear(
    out: Tensor, x: Tensor, y: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor
) -> Tensor:
    """Write x + scale * linear(y), on rows, to ``out``, which may be ``x``."""
    _add_bias(out, x, scale, bias)
    return _add_product(out, y if scale is None else y * scale, weight.t())


class _AddLinear(Function):
    """x + scale * linear(y), on rows; ``scale`` (L, 1) or None."""

    @staticmethod
    def forward(ctx, x, y, scale, weight, bias):
        ctx.save_for_backward(y, scale, weight)
        return _write_add_linear(torch.empty_like(x), x, y, scale, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, scale, weight = ctx.saved_tensors
        scaled = grad if scale is None else grad * scale
        return grad, scaled @ weight, None, scaled.t() @ y, scaled.sum(0)


def _write_add_norm_mlp(
    out: Tensor,
    hidden: Tensor | None,
    x: Tensor,
    scale: Tensor | None,
    eps: float,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """Write x + scale * MLP(LayerNorm(x)), on rows, to ``out``, which may be ``x``.

    The first layer's output goes to ``hidden`` where it is given; else one chunk's memory serves
    for all, as fresh memory costs as much as the product.
    """
    chunks = list(_chunks(x, len(weight1)))
    buffer = x.new_empty(len(x[chunks[0]]), len(weight1)) if hidden is None and chunks else None
    for chunk in chunks:
        part = x[chunk]
        normed = F.layer_norm(part, norm_weight.shape, norm_weight, norm_bias, eps)
        if hidden is None:
            act = torch.addmm(bias1, normed, weight1.t(), out=buffer[: len(part)])
            act = torch.ops.aten.gelu_(act)
        else:
            act = F.gelu(torch.addmm(bias1, normed, weight1.t(), out=hidden[chunk]))
        if scale is not None:
            act *= scale[chunk]
        _add_bias(out[chunk], part, None if scale is None else scale[chunk], bias2)
        _add_product(out[chunk], act, weight2.t())
    return out


class _AddNormMLP(Function):
    """x + scale * MLP(LayerNorm(x)), on rows; ``scale`` (L, 1) or None."""

    @staticmethod
    def forward(ctx, x, scale, eps, keep, norm_weight, norm_bias, weight1, bias1, weight2, bias2):
        hidden = x.new_empty(len(x), len(weight1)) if keep else None
        if keep:
            ctx.save_for_backward(x, scale, hidden, norm_weight, norm_bias, weight1, weight2)
            ctx.eps = eps
        parameters = norm_weight, norm_bias, weight1, bias1, weight2, bias2
        return _write_add_norm_mlp(torch.empty_like(x), hidden, x, scale, eps, *parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, scale, hidden, norm_weight, norm_bias, weight1, weight2 = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grads = _totals(weight1, weight1[:, 0], weight2, weight2[:, 0])
        grad_weight1, grad_bias1, grad_weight2, grad_bias2 = grads
        norm = _NormBackward(norm_weight, norm_bias, ctx.eps)
        for chunk in _chunks(x, len(weight1)):
            scaled = grad[chunk] if scale is None else grad[chunk] * scale[chunk]
            grad_bias2 += scaled.sum(0, dtype=grad_bias2.dtype)
            _add_product(grad_weight2, scaled.t(), F.gelu(hidden[chunk]))
            grad_hidden = scaled @ weight2
            torch.ops.aten.gelu_backward.grad_input(
                grad_hidden, hidden[chunk], grad_input=grad_hidden
            )
            grad_bias1 += grad_hidden.sum(0, dtype=grad_bias1.dtype)
            _add_product(grad_weight1, grad_hidden.t(), norm.normed(x[chunk]))
            torch.add(grad[chunk], norm.backward(grad_hidden @ weight1), out=grad_x[chunk])
        return grad_x, None, None, None, *(grad.to(x.dtype) for grad in (*norm.grads, *grads))


def norm_linear(
    x: Tensor, norm: nn.LayerNorm, linear: nn.Linear, parts: int
) -> tuple[Tensor, ...]:
    """``linear(norm(x)).chunk(parts, -1)`` of a map (B, H, W, C)."""
    parameters = norm.weight, norm.bias, linear.weight, linear.bias
    return _NormLinear.apply(x, parts, norm.eps, *parameters)


def add_linear(x: Tensor, y: Tensor, scale: Tensor | None, linear: nn.Linear) -> Tensor:
    """``x + scale * linear(y)`` of maps (B, H, W, C); ``scale`` (B, ) or None for 1.

    Without gradients it may be written over x, which must not be used again.
    """
    rows = _rows(x)
    operands = rows, _rows(y), _per_row(scale, x), linear.weight, linear.bias
    if torch.is_grad_enabled():
        out = _AddLinear.apply(*operands)
    else:
        out = _write_add_linear(rows, *operands)
    return out.view_as(x)


def add_norm_mlp(
    x: Tensor, scale: Tensor | None, norm: nn.LayerNorm, linear1: nn.Linear, linear2: nn.Linear
) -> Tensor:
    """``x + scale * linear2(gelu(linear1(norm(x))))`` of a map, as :func:`add_linear`."""
    rows = _rows(x)
    parameters = [p for layer in (norm, linear1, linear2) for p in (layer.weight, layer.bias)]
    if torch.is_grad_enabled():
        # Within a Function gradients are off, and wanted by parameters all the same.
        keep = any(p.requires_grad for p in (x, *parameters))
        out = _AddNormMLP.apply(rows, _per_row(scale, x), norm.eps, keep, *parameters)
    else:
        out = _write_add_norm_mlp(rows, None, rows, _per_row(scale, x), norm.eps, *parameters)
    return out.view_as(x)
