"""The backends of routed attention, one row each, and the choice of one.

A further backend is a file beside these and a row in :data:`BACKENDS`.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from . import chunked, exportable, reference, triton_backend
from .any_size import attend_in_regions, is_exporting, is_recorded
from .inputs import Inputs

logger = logging.getLogger('mmbiformer')


class Backend(NamedTuple):
    """One way to compute routed attention.

    Attributes:
        name (str): What users call it.
        forward (Callable): Inputs -> the output, a map. If the backend has a backward pass, it
            returns (output, a tensor to keep for that or None).
        backward (Callable, optional): (gradient of the output, Inputs, what forward returned) ->
            gradients of ``Inputs.differentiable``. None: PyTorch differentiates forward.
        problem (Callable, optional): Inputs -> why it cannot run on them in a few words, None
            where it can. None: it runs everywhere.
        kept_shape (Callable, optional): Inputs -> shape of the tensor to keep, in float32. None
            where the backward pass needs the inputs alone.
    """

    name: str
    forward: Callable
    backward: Callable | None = None
    problem: Callable[[Inputs], str | None] | None = None
    kept_shape: Callable[[Inputs], tuple[int, ...]] | None = None


BACKENDS = {
    row.name: row
    for row in (
        Backend('reference', functools.partial(attend_in_regions, reference.attend)),
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
_EXPORTABLE = Backend('exportable', functools.partial(attend_in_regions, exportable.attend))

AUTO = 'auto'
CHOICES = (AUTO, *BACKENDS)
VARIABLE = 'MMBIFORMER_ATTENTION_BACKEND'
# Read once: a value that changed between forward and backward would mix two backends.
_FROM_ENVIRONMENT = os.environ.get(VARIABLE, AUTO)


def choose(backend: str, inputs: Inputs) -> Backend:
    """The backend, one of :data:`CHOICES`, that computes these inputs.

    'auto' takes the environment's choice or, without one, 'chunked', and says so once in the log.

    Raises:
        ValueError: If the backend is unknown or cannot run; says why, and who asked for it.
    """
    name, source = (_FROM_ENVIRONMENT, VARIABLE) if backend == AUTO else (backend, 'backend')
    if name not in CHOICES:
        raise ValueError(f"{source} '{name}' is unknown: choose from {', '.join(CHOICES)}")
    if is_exporting():
        return _EXPORTABLE
    chosen = BACKENDS['chunked' if name == AUTO else name]
    if is_recorded():  # compilers do not look into a log, and the operator checks for them
        return chosen
    if name == AUTO:
        _log_auto(inputs.q.is_cuda)
    check_can_run(chosen, inputs, f' (from {VARIABLE})' if source == VARIABLE else '')
    return chosen


def check_can_run(backend: Backend, inputs: Inputs, source: str = '') -> None:
    """Raise ValueError with the reason where a backend cannot run on inputs."""
    if backend.problem and (problem := backend.problem(inputs)):
        raise ValueError(f"backend '{backend.name}'{source} cannot run: {problem}; take 'chunked'")


@functools.cache
def _log_auto(is_cuda: bool) -> None:
    """Say once what 'auto' takes, and why it is not the kernels of 'triton'."""
    why = "'triton' needs a CUDA GPU"
    if is_cuda:
        why = (
            "the kernels of 'triton', which have not been proven on a GPU, are taken by "
            f"attention_backend='triton' or {VARIABLE}=triton"
        )
    logger.info("routed attention: 'auto' takes backend 'chunked'; %s", why)
