"""Whether the functions of ``fused.py`` may stand in for modules.

They compute what plain modules compute, and so may not stand in for one that was replaced,
wrapped, parametrised, compiled or hooked: that one must run itself. PyTorch has no public way to
ask most of this. This file holds all private names that are asked, each with its reason.
"""

import functools
import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from mmbiformer.ops.any_size import is_recorded

from .drop_path import DropPath
from .mlp import MLP

# Exact types that can be stood in for: a subclass may compute anything.
FUSIBLE = (nn.Linear, nn.LayerNorm, nn.GELU, nn.Conv2d, DropPath, MLP)

logger = logging.getLogger('mmbiformer')


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether the fused functions are meant for this run: on a CPU, with nothing recording.

    Compilers fuse better what they see, and GPUs have other costs.
    """
    return x.device.type == 'cpu' and not is_recorded()


def fusing_problem(x: Tensor, modules: Mapping[str, nn.Module]) -> str | None:
    """Why the fused functions cannot stand in for modules that are given ``x``; None if they can.

    ``modules`` have the names that a message calls them.
    """
    if torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu') != torch.bfloat16:
        return 'autocast is on, and not in bfloat16'
    if problem := transform_problem():
        return problem
    for name, module in modules.items():
        if problem := hook_problem(module) or _module_problem(module, x.dtype):
            return f'{name} {problem}'
    return None


def transform_problem() -> str | None:
    """Why no function of ours may run at all: what transforms or watches all that runs."""
    # Private: no public function says whether a transform of torch.func is active, and our
    # functions have no rules for them.
    if torch._C._are_functorch_transforms_active():
        return 'a transform of torch.func is active'
    # Private for the same reason: a level of 0 or more means that forward mode is active.
    if forward_ad._current_level >= 0:
        return 'forward-mode differentiation is active'
    # Private: the registry of hooks on all modules has no public view.
    if torch_module._has_any_global_hook():
        return 'hooks are registered on all modules'
    return None


def hook_problem(module: nn.Module) -> str | None:
    """Whether somebody has changed how this module runs, or listens to it."""
    if 'forward' in vars(module):
        return 'has a forward of its own'
    # Private: hooks of a module are kept in these dicts, and in no public place.
    hooks = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'
    if any(getattr(module, name) for name in hooks):
        return 'has hooks'
    # Private: nn.Module.compile sets this, and nothing public tells.
    if module._compiled_call_impl is not None:
        return 'is compiled'
    return None


def _module_problem(module: nn.Module, dtype: torch.dtype) -> str | None:
    kind = type(module)
    if kind not in FUSIBLE:
        return f'is a {kind.__module__}.{kind.__qualname__}'
    # Private: ``parameters()`` leaves out those that are None, as a bias that is switched off.
    for name, parameter in module._parameters.items():
        if type(parameter) is not nn.Parameter and not _is_cast(parameter):
            return f'has no plain parameter {name}'
        if parameter.dtype != dtype and not (_is_cast(parameter) or _is_mixed(parameter, dtype)):
            return f'has parameters in {parameter.dtype}, and its input is in {dtype}'
    for name, child in module.named_children():
        if problem := hook_problem(child) or _module_problem(child, dtype):
            return f'has a {name} that {problem}'
    children = [type(child) for child in module.children()]
    is_other = (
        (kind is nn.GELU and module.approximate != 'none')
        or (kind is nn.Conv2d and not is_depthwise(module))
        or (kind is MLP and children != [nn.Linear, nn.GELU, nn.Linear])
    )
    return f'is a {kind.__name__} with other options' if is_other else None


def _is_cast(parameter: Tensor | None) -> bool:
    """Whether it is what ``casting.py`` puts in the place of a parameter under autocast."""
    return (
        type(parameter) is Tensor
        and torch.is_autocast_enabled('cpu')
        and parameter.dtype == torch.get_autocast_dtype('cpu')
    )


def _is_mixed(parameter: Tensor, dtype: torch.dtype) -> bool:
    """Whether it is in float32 and the map in autocast's dtype: norms read it, products a cast."""
    return (
        torch.is_autocast_enabled('cpu')
        and dtype == torch.get_autocast_dtype('cpu')
        and parameter.dtype == torch.float32
    )


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether it is depthwise, of stride 1, keeps the map's size and pads with zeros."""
    size = conv.kernel_size[0]
    return (
        conv.kernel_size == (size, size)
        and conv.padding == (size // 2, size // 2)
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
    )


@functools.cache
def log_unfused(what: str, problem: str) -> None:
    """Say once for each reason that modules run one by one, which takes more time and memory."""
    logger.info('%s runs without its fused path for CPUs: %s', what, problem)
