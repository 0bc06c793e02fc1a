"""Automatic mixed precision on CPUs, which mmengine has for accelerators alone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmbiformer.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Steps under autocast in bfloat16 on the CPU.

    bfloat16 has the range of float32, so that no loss needs scaling. Necks and heads return
    float32: what follows them are mmcv's operators, which on CPUs know no other dtype (NMS,
    RoIAlign), and losses.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As of mmengine, with autocast."""
        with ExitStack() as stack:
            stack.enter_context(super().optim_context(model))
            for name, module in model.named_modules():
                if name.rstrip('.0123456789').endswith(('neck', 'head')):
                    stack.callback(module.register_forward_hook(_return_float32).remove)
            stack.enter_context(torch.autocast('cpu', dtype=torch.bfloat16))
            yield


def _return_float32(module: nn.Module, args: tuple, out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return out.float() if out.dtype == torch.bfloat16 else out
    if isinstance(out, tuple | list):
        return type(out)(_return_float32(module, args, x) for x in out)
    return out
