"""Parameters of a block in autocast's dtype, all cast at once.

Autocast casts one parameter after the other, and each gradient back: 28 of the 38 casts of a
routed block. On GPUs each is a launch of a few microseconds, as long as the products of a small
map.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmbiformer.ops.any_size import is_recorded
from mmbiformer.ops.routed_attention import cast_by_autocast

from .fused_checks import hook_problem

# Exact types: autocast casts all parameters of these, and a subclass may want them as they are.
CAST_BY_AUTOCAST = nn.Linear, nn.Conv2d


def call_with_casts(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``; where autocast is on, with the parameters of its products cast before."""
    device = x.device.type
    has_autocast = torch.amp.is_autocast_available(device)  # not so on the meta device
    # Compilers fuse casts by themselves, and exporters would record what is not the model's.
    if is_recorded() or not has_autocast or not torch.is_autocast_enabled(device):
        return block(x)
    slots = [
        (parameters, name, parameter)
        for parameters in _parameters_of_products(block)
        for name, parameter in parameters.items()
        if parameter is not None and parameter.dtype == torch.float32
    ]
    if not slots:
        return block(x)
    originals = [parameter for _, _, parameter in slots]
    casts = _CastTogether.apply(torch.get_autocast_dtype(device), *originals)
    try:
        for (parameters, name, _), cast in zip(slots, casts, strict=True):
            parameters[name] = cast
        return block(x)
    finally:
        for parameters, name, original in slots:
            parameters[name] = original


def cast_parameters(module: nn.Linear | nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as autocast gives them to a product, whether or not they are cast before."""
    bias = None if module.bias is None else cast_by_autocast(module.bias)
    return cast_by_autocast(module.weight), bias


def _parameters_of_products(block: nn.Module) -> list[dict[str, Tensor | None]]:
    """Where modules keep the parameters that autocast would cast."""
    # Private: ``torch.func.functional_call`` does the same in public, and takes 0.1 ms more for a
    # block than all that is saved.
    return [
        module._parameters
        for module in block.modules()
        if type(module) in CAST_BY_AUTOCAST and hook_problem(module) is None
    ]


class _CastTogether(Function):
    """Parameters in float32 to copies in ``dtype``; gradients the other way."""

    @staticmethod
    def forward(ctx, dtype, *parameters):
        ctx.set_materialize_grads(False)
        return tuple(_cast(parameters, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        there = [grad for grad in grads if grad is not None]
        cast = iter(_cast(there, torch.float32))
        return None, *(None if grad is None else next(cast) for grad in grads)


def _cast(tensors, dtype):
    """Copies of tensors of one dtype in another, on GPUs in a launch or two for all of them."""
    copies = [torch.empty_like(x, dtype=dtype) for x in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies
