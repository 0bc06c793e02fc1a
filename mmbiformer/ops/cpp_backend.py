"""Routed attention in C++, compiled for this CPU when it is first needed: the fastest on CPUs.

``cpp/routed_attention.cpp`` computes what ``chunked.py`` does, a few queries at a time: it reads
and writes maps, and copies no more of them than a core's cache holds. Nothing but the inputs is
kept for the backward pass. Results repeat bitwise for one number of threads.
"""

import ctypes
import sys
from functools import cache

import torch
from torch import Tensor

from mmbiformer.cpp.calls import LANES, Map, call, pointer, side_by_side, tensor_problem
from mmbiformer.cpp.compiler import find_fault

from . import kernel_check
from .inputs import Inputs
from .regions import Partition

# Gradients of keys and values are summed by one thread for each head. Where there are more threads
# than heads, so many share a head at most, each with sums of its own: memory for threads.
MAX_SHARES = 4
NO_MEMORY, NO_REGION = 1, 2
SETUP = kernel_check.Setup('cpu', 'float32', head_dim=32, partition_factor=3, has_pads=True)


class _Partition(ctypes.Structure):
    """The structure of this name in ``routed_attention.cpp``, and so are the others."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ('batch', 'height', 'width', 'factor', 'region_height', 'region_width')
    ]

    @classmethod
    def of(cls, partition: Partition) -> '_Partition':
        return cls(*partition, *partition.region)


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, _Partition) for name in ('queries', 'keys')),
        *((name, Map) for name in ('query', 'key', 'value')),
        *((name, ctypes.c_int64) for name in ('heads', 'dim', 'value_dim', 'listed')),
        *((name, ctypes.c_void_p) for name in ('indices', 'pad_key', 'pad_value')),
        ('masks_padding', ctypes.c_int64),
        ('scale', ctypes.c_float),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [
        *((name, Map) for name in ('out', 'query', 'key', 'value')),
        *((name, ctypes.c_void_p) for name in ('pad_key', 'pad_value')),
        *((name, ctypes.c_int64) for name in ('shares', 'key_share', 'value_share')),
    ]


class _Prepared:
    """What both passes compute with; holds the memory that :attr:`problem` points to."""

    def __init__(self, inputs: Inputs) -> None:
        self.maps = [side_by_side(x) for x in (inputs.q, inputs.k, inputs.v)]
        self.rest = (
            inputs.indices.contiguous(),
            *(None if x is None else x.contiguous() for x in (inputs.pad_key, inputs.pad_value)),
        )
        self.dtype = inputs.q.dtype
        self.problem = _Problem(
            *(_Partition.of(x) for x in (inputs.partition, inputs.key_partition)),
            *(Map.of(x) for x in self.maps),
            inputs.num_heads,
            *(x.shape[3] // inputs.num_heads for x in (inputs.q, inputs.v)),
            inputs.indices.shape[2],
            *(pointer(x) for x in self.rest),
            inputs.masks_padding,
            inputs.scale,
        )

    def call(self, name: str, *arguments: ctypes.Structure) -> None:
        outcome = call(name, self.dtype, self.problem, *arguments)
        if outcome & NO_REGION:
            raise IndexError('indices must be region numbers from 0 to S * S - 1')
        if outcome & NO_MEMORY:
            raise MemoryError('there is none for the logits of a few queries')


def problem(inputs: Inputs) -> str | None:
    """Why it cannot run on the inputs, None where it can."""
    q, v = inputs.q, inputs.v
    if found := tensor_problem(q):
        return found
    for x in (q, v):
        if (x.shape[-1] // inputs.num_heads) % LANES:
            channels = x.shape[-1] // inputs.num_heads
            return f'{channels} channels of a head are no multiple of {LANES}'
    if inputs.routing_weights is not None:
        return 'it has no routing weights'
    return fault()


@cache
def fault() -> str | None:
    """Why nothing can be computed: no library, or a wrong one; None where there is none."""
    return find_fault(_find_fault)


def _find_fault() -> str | None:
    this = sys.modules[__name__]
    for setup in (SETUP, SETUP._replace(has_pads=False), SETUP._replace(dtype='bfloat16')):
        if found := kernel_check.find_fault(setup, this):
            return found
    return None


def forward(inputs: Inputs) -> tuple[Tensor, None]:
    """The output, a map as wide as v, and nothing else for the backward pass."""
    out = inputs.q.new_empty(*inputs.q.shape[:3], inputs.v.shape[3])
    _Prepared(inputs).call('forward', Map.of(out))
    return out, None


def backward(grad_out: Tensor, inputs: Inputs, out: None, kept: None) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, pad_key and pad_value; None for what is not given."""
    grad_out = side_by_side(grad_out)
    grad_query = grad_out.new_empty(inputs.q.shape)
    shares = min(MAX_SHARES, -(-torch.get_num_threads() // inputs.num_heads))
    sums = [x.new_zeros(shares, *x.shape, dtype=torch.float32) for x in (inputs.k, inputs.v)]
    pads = [
        None if x is None else grad_out.new_zeros(shares, len(x), dtype=torch.float64)
        for x in (inputs.pad_key, inputs.pad_value)
    ]
    grads = _Gradients(
        *(Map.of(x) for x in (grad_out, grad_query, sums[0][0], sums[1][0])),
        *(pointer(x) for x in pads),
        *(shares, sums[0].stride(0), sums[1].stride(0)),
    )
    _Prepared(inputs).call('backward', grads)
    dtype = grad_out.dtype
    grad_key, grad_value = ((x[0] if shares == 1 else x.sum(0)).to(dtype) for x in sums)
    pads = (None if x is None else x.sum(0).to(dtype) for x in pads)
    return grad_query, grad_key, grad_value, *pads, None
