"""Calls of functions of the library, and the structures that they share."""

import ctypes

import torch
from torch import Tensor

from .compiler import load

LANES = 16  # channels that vectors of all kinds of CPUs divide
DTYPES = torch.float32, torch.bfloat16


class Map(ctypes.Structure):
    """The structure of this name in ``vectors.h``."""

    _fields_ = [
        ('at', ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ('image', 'row', 'token')),
    ]

    @classmethod
    def of(cls, x: Tensor) -> 'Map':
        """Of a map (B, H, W, C) whose channels lie side by side, and which must outlive this."""
        return cls(x.data_ptr(), *x.stride()[:3])


def tensor_problem(x: Tensor) -> str | None:
    """Why no function can read a tensor, None where some can."""
    if x.device.type != 'cpu':
        return f'it is for CPUs, not {x.device.type}'
    if x.dtype not in DTYPES:
        return f'dtype {x.dtype} is neither torch.float32 nor torch.bfloat16'
    return None


def side_by_side(x: Tensor) -> Tensor:
    """The map, whose channels then lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def pointer(x: Tensor | None) -> int | None:
    """Where a tensor begins; null for None."""
    return None if x is None else x.data_ptr()


def call(name: str, dtype: torch.dtype, *arguments: ctypes.Structure | Tensor | int | None) -> int:
    """Call a function for maps in ``dtype``: with structures by their address, and all threads."""
    converted = []
    for x in arguments:
        if isinstance(x, ctypes.Structure):
            converted.append(ctypes.byref(x))
        elif isinstance(x, int):
            converted.append(ctypes.c_int64(x))
        else:
            converted.append(ctypes.c_void_p(pointer(x)))
    function = getattr(load(), f'{name}_{str(dtype).removeprefix("torch.")}')
    return function(*converted, torch.get_num_threads())
