"""Which backend computes routed attention."""

import functools
import logging
import os

from torch import Tensor

from . import triton_backend

BACKENDS = ('auto', 'reference', 'chunked', 'triton')
VARIABLE = 'MMBIFORMER_ATTENTION_BACKEND'
# Read once: a value that changed between forward and backward would mix two backends.
_FROM_ENVIRONMENT = os.environ.get(VARIABLE, 'auto')

logger = logging.getLogger('mmbiformer')


def requested(backend: str) -> str:
    """The backend that was asked for: the argument, or with 'auto' the environment's.

    Raises:
        ValueError: If it is unknown; names where it came from.
    """
    source = 'backend'
    if backend == 'auto':
        source, backend = VARIABLE, _FROM_ENVIRONMENT
    if backend not in BACKENDS:
        raise ValueError(f"{source} '{backend}' is unknown: choose from {', '.join(BACKENDS)}")
    return backend


def resolve(backend: str, q: Tensor, num_heads: int) -> str:
    """'chunked' or 'triton', given one of them or 'auto', for queries (B, H, W, C).

    'auto' takes Triton where it can run, and logs once which backend it took and why.

    Raises:
        ValueError: If 'triton' was asked for and cannot run; says why.
    """
    if backend == 'chunked':
        return backend
    if backend == 'auto' and not q.is_cuda:  # interpreted kernels are for tests alone
        problem = f'q is on {q.device.type}, and it needs a CUDA GPU'
    else:
        problem = triton_backend.problem(q, num_heads)
    if backend == 'triton' and problem:
        source = f' (from {VARIABLE})' if backend == _FROM_ENVIRONMENT else ''
        raise ValueError(f"backend 'triton'{source} cannot run: {problem}; take 'chunked'")
    if backend == 'auto':
        _log_once(problem)
    return 'chunked' if problem else 'triton'


@functools.cache
def _log_once(problem: str | None) -> None:
    if problem:
        logger.info("routed attention: backend 'chunked', as 'triton' cannot run: %s", problem)
    else:
        logger.info("routed attention: backend 'triton'")
