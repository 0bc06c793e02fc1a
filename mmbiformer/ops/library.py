"""Backends with a backward pass of their own, as operators of torch.library.

This way autograd, torch.compile, opcheck and FLOP counters know them. They are registered one by
one and not by ``torch.library.custom_op``, which takes three times as long to reach them.

``mmbiformer::routed_attention`` returns (output, what the backend keeps for the backward pass);
``mmbiformer::routed_attention_backward`` returns the gradients of q, k, v, the pads and the
routing weights, empty ones of what there is not.
"""

from collections.abc import Callable

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
    return torch.ops.mmbiformer.routed_attention.default(*inputs, backend.name)[0]


def _attend(*inputs_and_backend) -> tuple[Tensor, Tensor]:
    inputs, backend = _split(inputs_and_backend)
    try:
        out, kept = backend.forward(inputs)
    except Exception as error:
        _name_the_way_out(backend, error)
        raise
    return out, out.new_empty(0) if kept is None else kept


def _attend_fake(*inputs_and_backend) -> tuple[Tensor, Tensor]:
    inputs, backend = _split(inputs_and_backend)
    check_can_run(backend, inputs)
    out = inputs.q.new_empty(*inputs.q.shape[:3], inputs.v.shape[3])
    if backend.kept_shape is None:
        return out, out.new_empty(0)
    return out, out.new_empty(backend.kept_shape(inputs), dtype=torch.float32)


def _differentiate(grad_out, out, kept, *inputs_and_backend) -> tuple[Tensor, ...]:
    inputs, backend = _split(inputs_and_backend)
    try:
        grads = backend.backward(grad_out, inputs, out, kept)
    except Exception as error:
        _name_the_way_out(backend, error)
        raise
    return tuple(grad_out.new_empty(0) if grad is None else grad for grad in grads)


def _differentiate_fake(grad_out, out, kept, *inputs_and_backend) -> tuple[Tensor, ...]:
    inputs, _ = _split(inputs_and_backend)
    return tuple(grad_out.new_empty(0 if x is None else x.shape) for x in inputs.differentiable)


def _split(inputs_and_backend: tuple) -> tuple[Inputs, Backend]:
    *values, name = inputs_and_backend
    inputs = Inputs(*values)
    return inputs, choose_auto(inputs) if name == AUTO else BACKENDS[name]


def _name_the_way_out(backend: Backend, error: Exception) -> None:
    """Say what to set where kernels cannot be compiled or launched."""
    # The other backends are PyTorch's own operators, and more memory would mend it.
    if backend.name == 'triton' and not isinstance(error, torch.OutOfMemoryError):
        raise RuntimeError(
            f"the kernels of backend 'triton' failed ({type(error).__name__}: {error}): start "
            f"again with {VARIABLE}=chunked, or attention_backend='chunked' in the config"
        ) from error


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs_and_backend):
        outputs = _below_autograd(*inputs_and_backend)
        inputs, backend = _split(inputs_and_backend)
        # The settings are plain values; tensors go where hooks and checkpointing see them.
        ctx.settings = inputs.partition_factor, inputs.num_heads, inputs.scale, backend.name
        needed = (None, None) if backend.kept_shape is None else outputs
        ctx.save_for_backward(*needed, *inputs.differentiable, inputs.indices)
        # ``kept`` has no gradient, and zeros in its place would be memory for nothing.
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx, grad_out, _):
        if grad_out is None:
            return (None,) * 11
        # ``saved_tensors`` is looked at once, as a checkpointed block allows no second look.
        out, kept, *tensors, indices = ctx.saved_tensors
        q, k, v, pad_key, pad_value, weights = tensors
        *settings, backend = ctx.settings
        inputs = q, k, v, indices, pad_key, pad_value, *settings, weights
        differentiate = torch.ops.mmbiformer.routed_attention_backward.default
        grads = differentiate(grad_out, out, kept, *inputs, backend)
        grads = [None if x is None else grad for x, grad in zip(tensors, grads, strict=True)]
        grad_q, grad_k, grad_v, *grad_pads, grad_weights = grads
        return grad_q, grad_k, grad_v, None, *grad_pads, None, None, None, grad_weights, None


def _below_autograd(*inputs_and_backend) -> tuple[Tensor, Tensor]:
    # Private, but ``torch.library.register_autograd`` is made of it as well.
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.mmbiformer.routed_attention.default(*inputs_and_backend)


def _attend_and_remember(*inputs_and_backend) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled():
        for x in Inputs(*inputs_and_backend[:-1]).differentiable:
            if x is not None and x.requires_grad:
                return _Differentiable.apply(*inputs_and_backend)
    return _below_autograd(*inputs_and_backend)


def _register(name: str, schema: str, function: Callable, fake: Callable) -> None:
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, function, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmbiformer::{name}', fake, lib=_LIBRARY)


_LIBRARY = torch.library.Library('mmbiformer', 'FRAGMENT')  # registered as long as it is there
_register('routed_attention', f'({_INPUTS}) -> (Tensor, Tensor)', _attend, _attend_fake)
_register(
    'routed_attention_backward',
    f'(Tensor grad_out, Tensor? out, Tensor? kept, {_INPUTS}) -> (Tensor{", Tensor" * 5})',
    *(_differentiate, _differentiate_fake),
)
_LIBRARY.impl('routed_attention', _attend_and_remember, 'Autograd')
