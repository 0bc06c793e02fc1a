"""The fast backends as operators of torch.library, for autograd, torch.compile and opcheck.

``mmbiformer::routed_attention`` returns (output, what the backend keeps for the backward pass);
``mmbiformer::routed_attention_backward`` returns the gradients of q, k, v and the pads, empty ones
where there are no pads.
"""

import torch
from torch import Tensor

from . import chunked, triton_backend
from .backends import resolve
from .inputs import Inputs

_MODULES = {'chunked': chunked, 'triton': triton_backend}


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
    tensors = q, k, v, indices, pad_key, pad_value
    module = _MODULES[resolve(backend, q, num_heads)]
    return module.forward(Inputs(*tensors, partition_factor, num_heads, scale))


@routed_attention.register_fake
def _(q, k, v, indices, pad_key, pad_value, partition_factor, num_heads, scale, backend):
    if resolve(backend, q, num_heads) == 'triton':
        kept = q.new_empty(*q.shape[:3], num_heads, dtype=torch.float32)
    else:
        kept = q.new_empty(0)
    return q.new_empty(q.shape), kept


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
    tensors = q, k, v, indices, pad_key, pad_value
    inputs = Inputs(*tensors, partition_factor, num_heads, scale)
    outputs = () if out is None else (out, kept)
    grads = _MODULES[backend].backward(grad_out, inputs, *outputs)
    return tuple(q.new_empty(0) if grad is None else grad for grad in grads)


@routed_attention_backward.register_fake
def _(grad_out, q, k, v, indices, pad_key, pad_value, out, kept, *settings):
    pads = [q.new_empty(0 if pad is None else pad.shape) for pad in (pad_key, pad_value)]
    return *(q.new_empty(q.shape) for _ in range(3)), *pads


def _setup_context(ctx, inputs, output) -> None:
    *tensors, partition_factor, num_heads, scale, backend = inputs
    backend = resolve(backend, inputs[0], num_heads)
    ctx.settings = partition_factor, num_heads, scale, backend
    # The chunked backend recomputes the weights, and needs nothing of the forward pass.
    ctx.save_for_backward(*tensors, *(output if backend == 'triton' else (None, None)))


def _backward(ctx, grad_out, _):
    saved = ctx.saved_tensors  # with_cp allows one look
    grads = routed_attention_backward(grad_out, *saved, *ctx.settings)
    grad_pads = (None, None) if saved[4] is None else grads[3:]
    return *grads[:3], None, *grad_pads, None, None, None, None


routed_attention.register_autograd(_backward, setup_context=_setup_context)
