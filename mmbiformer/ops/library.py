"""Backends with a backward pass of their own, as operators of torch.library.

Autograd, torch.compile, opcheck and FLOP counters so know them. ``mmbiformer::routed_attention``
returns (output, what the backend keeps for the backward pass); ``mmbiformer::
routed_attention_backward`` returns the gradients of q, k, v and the pads, empty ones where there
are no pads.
"""

import torch
from torch import Tensor

from .backends import BACKENDS, Backend, check_can_run
from .inputs import Inputs


def run(backend: Backend, inputs: Inputs) -> Tensor:
    """The output, (B, H, W, C), by way of the operator where the backend has a backward pass."""
    if backend.backward is None:
        return backend.forward(inputs)
    return routed_attention(*inputs, backend.name)[0]


@torch.library.custom_op('mmbiformer::routed_attention', mutates_args=())
def routed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    indices: Tensor,
    pad_key: Tensor | None,
    pad_value: Tensor | None,
    partition_factor: int,
    num_heads: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    inputs = Inputs(q, k, v, indices, pad_key, pad_value, partition_factor, num_heads, scale)
    out, kept = BACKENDS[backend].forward(inputs)
    return out, q.new_empty(0) if kept is None else kept


@routed_attention.register_fake
def _(*arguments):
    *inputs, name = arguments
    inputs, backend = Inputs(*inputs), BACKENDS[name]
    check_can_run(backend, inputs)
    out = inputs.q.new_empty(inputs.q.shape)
    if backend.kept_shape is None:
        return out, out.new_empty(0)
    return out, out.new_empty(backend.kept_shape(inputs), dtype=torch.float32)


@torch.library.custom_op('mmbiformer::routed_attention_backward', mutates_args=())
def routed_attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    indices: Tensor,
    pad_key: Tensor | None,
    pad_value: Tensor | None,
    out: Tensor | None,
    kept: Tensor | None,
    partition_factor: int,
    num_heads: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = Inputs(q, k, v, indices, pad_key, pad_value, partition_factor, num_heads, scale)
    grads = BACKENDS[backend].backward(grad_out, inputs, out, kept)
    return tuple(q.new_empty(0) if grad is None else grad for grad in grads)


@routed_attention_backward.register_fake
def _(grad_out, q, k, v, indices, pad_key, pad_value, out, kept, *settings):
    pads = [q.new_empty(0 if pad is None else pad.shape) for pad in (pad_key, pad_value)]
    return *(q.new_empty(q.shape) for _ in range(3)), *pads


def _setup_context(ctx, inputs, output) -> None:
    *inputs, backend = inputs
    inputs, (out, kept) = Inputs(*inputs), output
    if BACKENDS[backend].kept_shape is None:
        out = kept = None
    ctx.settings = inputs.partition_factor, inputs.num_heads, inputs.scale, backend
    ctx.has_pads = inputs.pad_key is not None
    # ``kept`` has no gradient, and zeros in its place would be memory for nothing.
    ctx.set_materialize_grads(False)
    pads = inputs.pad_key, inputs.pad_value
    ctx.save_for_backward(inputs.q, inputs.k, inputs.v, inputs.indices, *pads, out, kept)


def _backward(ctx, grad_out, _):
    if grad_out is None:
        return (None,) * 10
    # ``saved_tensors`` is looked at once, as a checkpointed block allows no second look.
    grads = routed_attention_backward(grad_out, *ctx.saved_tensors, *ctx.settings)
    grad_q, grad_k, grad_v, *grad_pads = grads
    if not ctx.has_pads:
        grad_pads = None, None
    return grad_q, grad_k, grad_v, None, *grad_pads, None, None, None, None


routed_attention.register_autograd(_backward, setup_context=_setup_context)
