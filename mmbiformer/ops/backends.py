"""The backends of routed attention, one row each, and the choice of one.

A further backend is a file beside these and a row in :data:`BACKENDS`.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import torch

from . import chunked, exportable, reference, triton_backend
from .any_size import is_exporting
from .inputs import Inputs

logger = logging.getLogger('mmbiformer')


def _runs_everywhere(inputs: Inputs) -> None:
    return None


class Backend(NamedTuple):
    """One way to compute routed attention.

    Attributes:
        name (str): What users call it.
        forward (Callable): Inputs -> the output, (B, H, W, C); with an own backward pass (output,
            what that needs besides output and inputs, or None).
        backward (Callable, optional): (gradient of the output, Inputs, what forward returned) ->
            gradients of q, k, v, pad_key, pad_value. None: PyTorch differentiates forward.
        problem (Callable): Inputs -> why it cannot run on them in a few words, None where it can.
        kept_shape (Callable, optional): Inputs -> shape of what forward returns beside the output,
            in float32. None where the backward pass needs the inputs alone.
    """

    name: str
    forward: Callable
    backward: Callable | None = None
    problem: Callable[[Inputs], str | None] = _runs_everywhere
    kept_shape: Callable[[Inputs], tuple[int, ...]] | None = None


BACKENDS = {
    row.name: row
    for row in (
        Backend('reference', reference.forward),
        Backend('chunked', chunked.forward, chunked.backward),
        Backend(
            'triton',
            triton_backend.forward,
            triton_backend.backward,
            triton_backend.problem,
            triton_backend.kept_shape,
        ),
    )
}
# What exporters get, whatever the user chose: they know no operator of ours.
_EXPORTABLE = Backend('exportable', exportable.forward)

AUTO = 'auto'
CHOICES = (AUTO, *BACKENDS)
VARIABLE = 'MMBIFORMER_ATTENTION_BACKEND'
# Read once: a value that changed between forward and backward would mix two backends.
_FROM_ENVIRONMENT = os.environ.get(VARIABLE, AUTO)


def choose(backend: str, inputs: Inputs) -> Backend:
    """The backend that computes these inputs.

    Args:
        backend (str): One of :data:`CHOICES`. 'auto' takes the environment's choice or, without
            one, 'chunked', and says so once in the log.

    Raises:
        ValueError: If the backend is unknown or cannot run; says why, and who asked for it.
    """
    name, source = (_FROM_ENVIRONMENT, VARIABLE) if backend == AUTO else (backend, 'backend')
    if name not in CHOICES:
        raise ValueError(f"{source} '{name}' is unknown: choose from {', '.join(CHOICES)}")
    if is_exporting():
        return _EXPORTABLE
    is_compiling = torch.compiler.is_compiling()
    if name == AUTO:
        if not is_compiling:
            _log_once(_describe_auto(inputs))
        return BACKENDS['chunked']
    if not is_compiling:  # the operator asks again where compilers record it
        check_can_run(BACKENDS[name], inputs, f' (from {VARIABLE})' if source == VARIABLE else '')
    return BACKENDS[name]


def check_can_run(backend: Backend, inputs: Inputs, source: str = '') -> None:
    """Raise ValueError with the reason where a backend cannot run on inputs."""
    if problem := backend.problem(inputs):
        raise ValueError(f"backend '{backend.name}'{source} cannot run: {problem}; take 'chunked'")


def _describe_auto(inputs: Inputs) -> str:
    """What 'auto' takes, and why it is not the kernels of 'triton'."""
    if not inputs.q.is_cuda:  # interpreted kernels are for tests alone
        problem = f'q is on {inputs.q.device.type}, and it needs a CUDA GPU'
    else:
        problem = triton_backend.problem(inputs)
    if problem:
        return f"routed attention: backend 'chunked', as 'triton' cannot run: {problem}"
    return (
        "routed attention: backend 'chunked'; the kernels of 'triton', which have not been proven "
        f"on a GPU, are taken by attention_backend='triton' or {VARIABLE}=triton"
    )


@functools.cache
def _log_once(message: str) -> None:
    logger.info(message)
