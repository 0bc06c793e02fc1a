"""Whether the functions of ``fused.py`` may stand in for modules.

They compute what plain modules compute, and so may not stand in for one that was replaced,
wrapped, parametrised, compiled or hooked: that one must run itself. PyTorch has no public way to
ask most of this. This file holds all private names that are asked, each with its reason.
"""

import functools
import logging

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from .drop_path import DropPath
from .mlp import MLP

logger = logging.getLogger('mmbiformer')


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether the fused functions are meant for this run: on a CPU, with nothing recording.

    Compilers fuse better what they see, and GPUs have other costs.
    """
    return (
        x.device.type == 'cpu' and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
    )


def fusing_problem(x: Tensor, **parts: nn.Module) -> str | None:
    """Why the fused functions cannot stand in for modules on an input, in a few words.

    Args:
        x (Tensor): What the modules are given.
        **parts (nn.Module): The modules, by the names that a message calls them.

    Returns:
        str | None: None where they can.
    """
    if torch.is_autocast_enabled('cpu'):
        return 'autocast is on'
    # Private: no public name tells of torch.func's transforms, which know no backward of ours.
    if torch._C._are_functorch_transforms_active():
        return 'a transform of torch.func is active'
    # Private: nor of forward-mode differentiation; a level from 0 on is active.
    if forward_ad._current_level >= 0:
        return 'forward-mode differentiation is active'
    # Private: the registry of hooks on all modules has no public view.
    if torch_module._has_any_global_hook():
        return 'hooks are registered on all modules'
    for name, part in parts.items():
        if problem := hook_problem(part) or _part_problem(part, x.dtype):
            return f'{name} {problem}'
    return None


def hook_problem(module: nn.Module) -> str | None:
    """Whether somebody has changed how this module runs, or listens to it."""
    if 'forward' in vars(module):
        return 'has a forward of its own'
    # Private: hooks of a module are kept in these dicts, and in no public place.
    hooks = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'
    if any(getattr(module, name) for name in hooks):
        return 'has hooks'
    # Private: what nn.Module.compile sets.
    if module._compiled_call_impl is not None:
        return 'is compiled'
    return None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Of stride 1, keeping the size of the map, with zeros around it."""
    size = conv.kernel_size[0]
    return (
        conv.kernel_size == (size, size)
        and conv.padding == (size // 2, size // 2)
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
        and conv.bias is not None
    )


# Exact types that can be stood in for (a subclass may compute anything) -> whether with the
# options that an instance has.
FUSIBLE = {
    nn.Linear: lambda linear: linear.bias is not None,
    nn.LayerNorm: lambda norm: norm.bias is not None,
    nn.GELU: lambda act: act.approximate == 'none',
    nn.Conv2d: _is_depthwise,
    DropPath: lambda drop_path: True,
    MLP: lambda mlp: [type(x) for x in mlp.children()] == [nn.Linear, nn.GELU, nn.Linear],
}


def _part_problem(module: nn.Module, dtype: torch.dtype) -> str | None:
    kind = type(module)
    if kind not in FUSIBLE:
        return f'is a {kind.__name__}'
    # Private: ``parameters()`` leaves out those that are None, and parametrised ones are no
    # plain parameters.
    for parameter in module._parameters.values():
        if parameter is not None and type(parameter) is not nn.Parameter:
            return 'has parameters of another kind'
        if parameter is not None and parameter.dtype != dtype:
            return f'has parameters in {parameter.dtype}, and its input is in {dtype}'
    for name, child in module.named_children():
        if problem := hook_problem(child) or _part_problem(child, dtype):
            return f'has a part {name} that {problem}'
    return None if FUSIBLE[kind](module) else f'is a {kind.__name__} with other options'


@functools.cache
def log_unfused(kind: str, problem: str) -> None:
    """Say once for each reason that modules of a kind run one by one, which takes more memory."""
    logger.info('%s runs without its fused path for CPUs: %s', kind, problem)
