"""Backends with a backward pass of their own, as operators of torch.library.

This way autograd, torch.compile, opcheck and FLOP counters know them.
``mmbiformer::routed_attention`` returns (output, what the backend keeps for the backward pass);
``mmbiformer::routed_attention_backward`` returns the gradients of q, k, v, the pads and the
routing weights, empty ones of what there is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .backends import AUTO, BACKENDS, VARIABLE, Backend, check_can_run, choose_auto
from .inputs import Inputs

# The attributes of Inputs in their order, and the backend's name.
_INPUTS = (
    'Tensor q, Tensor k, Tensor v, Tensor indices, Tensor? pad_key, Tensor? pad_value, '
    'int partition_factor, int num_heads, float scale, Tensor? routing_weights, str backend'
)


def run(backend: Backend, inputs: Inputs) -> Tensor:
    """The output, a map, by way of the operator where the backend has a backward pass."""
    if backend.backward is None:
        return backend.forward(inputs)
    return routed_attention(*inputs, backend.name)[0]


@torch.library.custom_op(
    'mmbiformer::routed_attention', mutates_args=(), schema=f'({_INPUTS}) -> (Tensor, Tensor)'
)
def routed_attention(*inputs_and_backend) -> tuple[Tensor, Tensor]:
    inputs, backend = _split(inputs_and_backend)
    with _naming_the_way_out(backend):
        out, kept = backend.forward(inputs)
    return out, out.new_empty(0) if kept is None else kept


@routed_attention.register_fake
def _(*inputs_and_backend):
    inputs, backend = _split(inputs_and_backend)
    check_can_run(backend, inputs)
    out = inputs.q.new_empty(*inputs.q.shape[:3], inputs.v.shape[3])
    if backend.kept_shape is None:
        return out, out.new_empty(0)
    return out, out.new_empty(backend.kept_shape(inputs), dtype=torch.float32)


@torch.library.custom_op(
    'mmbiformer::routed_attention_backward',
    mutates_args=(),
    schema=f'(Tensor grad_out, Tensor? out, Tensor? kept, {_INPUTS}) -> (Tensor{", Tensor" * 5})',
)
def routed_attention_backward(grad_out, out, kept, *inputs_and_backend) -> tuple[Tensor, ...]:
    inputs, backend = _split(inputs_and_backend)
    with _naming_the_way_out(backend):
        grads = backend.backward(grad_out, inputs, out, kept)
    return tuple(grad_out.new_empty(0) if grad is None else grad for grad in grads)


@routed_attention_backward.register_fake
def _(grad_out, out, kept, *inputs_and_backend):
    inputs, _ = _split(inputs_and_backend)
    return tuple(grad_out.new_empty(0 if x is None else x.shape) for x in inputs.differentiable)


def _split(inputs_and_backend: tuple) -> tuple[Inputs, Backend]:
    *values, name = inputs_and_backend
    inputs = Inputs(*values)
    return inputs, choose_auto(inputs) if name == AUTO else BACKENDS[name]


@contextmanager
def _naming_the_way_out(backend: Backend) -> Iterator[None]:
    """Say what to set where kernels cannot be compiled or launched."""
    try:
        yield
    except Exception as error:
        # The other backends are PyTorch's own operators, and more memory would mend it.
        if backend.name != 'triton' or isinstance(error, torch.OutOfMemoryError):
            raise
        raise RuntimeError(
            f"the kernels of backend 'triton' failed ({type(error).__name__}: {error}): start "
            f"again with {VARIABLE}=chunked, or attention_backend='chunked' in the config"
        ) from error


def _setup_context(ctx, inputs, output) -> None:
    inputs, backend = _split(inputs)
    # The settings are plain values; tensors go where hooks and checkpointing see them.
    ctx.settings = inputs.partition_factor, inputs.num_heads, inputs.scale, backend.name
    needed = (None, None) if backend.kept_shape is None else output
    ctx.save_for_backward(*needed, *inputs.differentiable, inputs.indices)
    # ``kept`` has no gradient, and zeros in its place would be memory for nothing.
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_out, _):
    if grad_out is None:
        return (None,) * 11
    # ``saved_tensors`` is looked at once, as a checkpointed block allows no second look.
    out, kept, *tensors, indices = ctx.saved_tensors
    q, k, v, pad_key, pad_value, weights = tensors
    *settings, backend = ctx.settings
    inputs = q, k, v, indices, pad_key, pad_value, *settings, weights
    grads = routed_attention_backward(grad_out, out, kept, *inputs, backend)
    grads = [None if x is None else grad for x, grad in zip(tensors, grads, strict=True)]
    grad_q, grad_k, grad_v, *grad_pads, grad_weights = grads
    return grad_q, grad_k, grad_v, None, *grad_pads, None, None, None, grad_weights, None


routed_attention.register_autograd(_backward, setup_context=_setup_context)
