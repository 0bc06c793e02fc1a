"""On CPUs these functions compute what a block does besides attention, with less memory traffic.

Tokens go through several modules a span at a time, while they are in cache. Nothing that a
normalisation or an activation can give again is kept for the backward pass, and residuals are
added where the products are written. Products are in the dtype of their weights, which autocast
casts, and all else is in the map's. ``fused_checks.py`` says when these functions may stand in
for modules; docs/performance.md has the measurements.

Shape letters: B batch, H and W height and width of the map, C channels, L = B * H * W tokens.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmbiformer.cpp import gelu

from .casting import cast_parameters
from .mlp import MLP

# The widest activations of a span, of all threads together, stay in a core's share of the caches.
BYTES_PER_THREAD = 1 << 20


def _spans(x: Tensor, width: int) -> Iterator[slice]:
    """Cut tokens (L, C), of which something ``width`` channels wide is made, into spans."""
    budget = BYTES_PER_THREAD * torch.get_num_threads()
    length = max(1, budget // (width * x.element_size()))
    for start in range(0, len(x), length):
        yield slice(start, start + length)


def _per_token(scale: Tensor | None, x: Tensor) -> Tensor | None:
    """Give each token of a map (B, H, W, C) its sample's factor: (B, ) to (L, 1)."""
    return None if scale is None else scale.repeat_interleave(x.shape[1] * x.shape[2]).unsqueeze(1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to a matrix in place, by the operator that FLOP counters know."""
    if total.dtype != a.dtype:
        return total.add_(a @ b)
    return torch.addmm(total, a, b, out=total)


def _to_dtypes(grads: Iterable[Tensor], *parameters: Tensor) -> Iterator[Tensor]:
    """Gradients in the dtypes of their parameters."""
    return (grad.to(x.dtype) for grad, x in zip(grads, parameters, strict=True))


def _totals(*parameters: Tensor) -> list[Tensor]:
    """Zeros to sum gradients of spans in: float32 or wider."""
    return [
        torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in parameters
    ]


class _NormLinear(Function):
    """Linear map of a LayerNorm, cut into parts along the channels."""

    @staticmethod
    def forward(ctx, x, eps, widths, norm_weight, norm_bias, weight, bias):
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.eps = eps
        tokens = x.flatten(0, 2)
        out = weight.new_empty(len(tokens), len(weight))
        for span in _spans(tokens, len(weight)):
            normed = F.layer_norm(tokens[span], norm_weight.shape, norm_weight, norm_bias, eps)
            torch.addmm(bias, normed.to(weight.dtype), weight.t(), out=out[span])
        return out.view(*x.shape[:3], len(weight)).split(widths, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        tokens, grads = x.flatten(0, 2), [grad.flatten(0, 2) for grad in grads]
        grad_x = torch.empty_like(tokens)
        grad_weight, grad_bias = _totals(weight, weight[:, 0])
        norm = _NormBackward(norm_weight, norm_bias, ctx.eps)
        for span in _spans(tokens, len(weight)):
            grad = torch.cat([part[span] for part in grads], dim=1)
            grad_bias += grad.sum(0, dtype=grad_bias.dtype)
            _add_product(grad_weight, grad.t(), norm.normed(tokens[span]).to(weight.dtype))
            grad_x[span] = norm.backward(grad @ weight)
        grads = *norm.grads, grad_weight, grad_bias
        grads = _to_dtypes(grads, norm_weight, norm_bias, weight, weight)
        return grad_x.view_as(x), None, None, *grads


class _NormBackward:
    """LayerNorm of spans of tokens, computed again, and its gradients."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps
        self.grads = _totals(weight, bias)

    def normed(self, tokens: Tensor) -> Tensor:
        self.tokens = tokens
        out, *self.statistics = torch.native_layer_norm(
            tokens, self.weight.shape, self.weight, self.bias, self.eps
        )
        return out

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of the tokens last normalised; adds to the gradients of weight and bias."""
        grad_tokens, *grads = torch.ops.aten.native_layer_norm_backward(
            *(grad.to(self.tokens.dtype), self.tokens, self.weight.shape, *self.statistics),
            *(self.weight, self.bias, [True] * 3),
        )
        for total, part in zip(self.grads, grads, strict=True):
            total += part
        return grad_tokens


def _add_bias(out: Tensor, x: Tensor, scale: Tensor | None, bias: Tensor) -> None:
    """Write x + scale * bias, on tokens, to ``out``, which may be ``x``."""
    bias = bias.to(x.dtype)
    if scale is None:
        torch.add(x, bias, out=out)
    else:
        torch.addcmul(x, scale, bias, out=out)


def _write_add_linear(
    out: Tensor, x: Tensor, y: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor
) -> Tensor:
    """Write x + scale * linear(y), on tokens, to ``out``, which may be ``x``."""
    _add_bias(out, x, scale, bias)
    scaled = y if scale is None else y * scale
    return _add_product(out, scaled.to(weight.dtype), weight.t())


class _AddLinear(Function):
    """x + scale * linear(y), on tokens; ``scale`` (L, 1) or None."""

    @staticmethod
    def forward(ctx, x, y, scale, weight, bias):
        ctx.save_for_backward(y, scale, weight)
        return _write_add_linear(torch.empty_like(x), x, y, scale, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, scale, weight = ctx.saved_tensors
        scaled = (grad if scale is None else grad * scale).to(weight.dtype)
        grad_y = (scaled @ weight).to(y.dtype)
        return grad, grad_y, None, scaled.t() @ y.to(weight.dtype), scaled.sum(0)


def _gelu_of_linear(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, may_overwrite: bool
) -> Tensor:
    """GELU of a linear map of tokens, which is written to ``out`` and may be overwritten."""
    if gelu.problem(out) is not None:
        torch.addmm(bias, x, weight.t(), out=out)
        return torch.ops.aten.gelu_(out) if may_overwrite else F.gelu(out)
    if out.dtype == torch.float32:  # PyTorch would copy the bias to the output first
        torch.mm(x, weight.t(), out=out)
    else:  # the product would be rounded before the bias is added
        torch.addmm(bias, x, weight.t(), out=out)
        bias = None
    return gelu.add_gelu(out, bias, out if may_overwrite else torch.empty_like(out))


def _differentiate_gelu(x: Tensor, grad: Tensor) -> Tensor:
    """GELU of tokens; ``grad`` becomes the gradient of what it is computed of."""
    if gelu.problem(x) is None:
        return gelu.differentiate_gelu(x, grad)
    torch.ops.aten.gelu_backward.grad_input(grad, x, grad_input=grad)
    return F.gelu(x)


def _write_add_norm_mlp(
    out: Tensor,
    hidden: Tensor | None,
    x: Tensor,
    scale: Tensor | None,
    eps: float,
    *parameters: Tensor,
) -> Tensor:
    """Write x + scale * MLP(LayerNorm(x)), on tokens, to ``out``, which may be ``x``.

    The first layer's output goes to ``hidden`` where it is given; else one span's memory serves
    for all, as fresh memory costs as much as the product.
    """
    norm_weight, norm_bias, weight1, bias1, weight2, bias2 = parameters
    spans = list(_spans(x, len(weight1)))
    buffer = None
    if hidden is None and spans:
        buffer = weight1.new_empty(len(x[spans[0]]), len(weight1))
    for span in spans:
        part = x[span]
        normed = F.layer_norm(part, norm_weight.shape, norm_weight, norm_bias, eps)
        normed = normed.to(weight1.dtype)
        linear = buffer[: len(part)] if hidden is None else hidden[span]
        act = _gelu_of_linear(linear, normed, weight1, bias1, may_overwrite=hidden is None)
        if scale is not None:
            act *= scale[span]
        _add_bias(out[span], part, None if scale is None else scale[span], bias2)
        _add_product(out[span], act, weight2.t())
    return out


class _AddNormMLP(Function):
    """x + scale * MLP(LayerNorm(x)), on tokens; ``scale`` (L, 1) or None."""

    @staticmethod
    def forward(ctx, x, scale, eps, *parameters):
        hidden = None
        if any(ctx.needs_input_grad):
            norm_weight, norm_bias, weight1, _, weight2, _ = parameters
            hidden = weight1.new_empty(len(x), len(weight1))
            ctx.save_for_backward(x, scale, hidden, norm_weight, norm_bias, weight1, weight2)
            ctx.eps = eps
        return _write_add_norm_mlp(torch.empty_like(x), hidden, x, scale, eps, *parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, scale, hidden, norm_weight, norm_bias, weight1, weight2 = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grads = _totals(weight1, weight1[:, 0], weight2, weight2[:, 0])
        grad_weight1, grad_bias1, grad_weight2, grad_bias2 = grads
        norm = _NormBackward(norm_weight, norm_bias, ctx.eps)
        for span in _spans(x, len(weight1)):
            scaled = grad[span] if scale is None else grad[span] * scale[span]
            scaled = scaled.to(weight2.dtype)
            grad_bias2 += scaled.sum(0, dtype=grad_bias2.dtype)
            grad_hidden = scaled @ weight2
            act = _differentiate_gelu(hidden[span], grad_hidden)
            _add_product(grad_weight2, scaled.t(), act)
            grad_bias1 += grad_hidden.sum(0, dtype=grad_bias1.dtype)
            _add_product(grad_weight1, grad_hidden.t(), norm.normed(x[span]).to(weight1.dtype))
            torch.add(grad[span], norm.backward(grad_hidden @ weight1), out=grad_x[span])
        parameters = norm_weight, norm_bias, weight1, weight1, weight2, weight2
        return grad_x, None, None, *_to_dtypes((*norm.grads, *grads), *parameters)


def norm_linear(
    x: Tensor, norm: nn.LayerNorm, linear: nn.Linear, widths: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """``linear(norm(x)).split(widths, -1)`` of a map (B, H, W, C)."""
    parameters = norm.weight, norm.bias, *cast_parameters(linear)
    return _NormLinear.apply(x, norm.eps, widths, *parameters)


def add_linear(
    x: Tensor,
    y: Tensor,
    scale: Tensor | None,
    linear: nn.Linear,
    may_overwrite: bool = True,
) -> Tensor:
    """``x + scale * linear(y)`` of maps (B, H, W, C); ``scale`` (B, ) or None for 1.

    Without gradients it may be written over x, which then must not be used again.
    """
    tokens = x.flatten(0, 2)
    operands = tokens, y.flatten(0, 2), _per_token(scale, x), *cast_parameters(linear)
    if torch.is_grad_enabled():
        out = _AddLinear.apply(*operands)
    else:
        out = tokens if may_overwrite else torch.empty_like(tokens)
        _write_add_linear(out, *operands)
    return out.view_as(x)


def add_norm_mlp(x: Tensor, scale: Tensor | None, norm: nn.LayerNorm, mlp: MLP) -> Tensor:
    """``x + scale * mlp(norm(x))`` of a map, as :func:`add_linear`."""
    tokens, scale = x.flatten(0, 2), _per_token(scale, x)
    parameters = norm.weight, norm.bias, *cast_parameters(mlp.fc1), *cast_parameters(mlp.fc2)
    if torch.is_grad_enabled():
        out = _AddNormMLP.apply(tokens, scale, norm.eps, *parameters)
    else:
        out = _write_add_norm_mlp(tokens, None, tokens, scale, norm.eps, *parameters)
    return out.view_as(x)
