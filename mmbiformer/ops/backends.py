"""The backends of routed attention, one row each, and the choice of one.

A further backend is a file beside these and a row in :data:`BACKENDS`.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from . import chunked, cpp_backend, exportable, flex, kernel_check, reference, triton_backend
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
        Backend('cpp', cpp_backend.forward, cpp_backend.backward, cpp_backend.problem),
        Backend(
            'triton',
            triton_backend.forward,
            triton_backend.backward,
            lambda inputs: triton_backend.problem(inputs) or kernel_check.problem(inputs),
            triton_backend.kept_shape,
        ),
        Backend('flex', functools.partial(attend_in_regions, flex.attend), problem=flex.problem),
    )
}
# What exporters get, whatever the user chose: they know no operator of ours.
_EXPORTABLE = Backend('exportable', functools.partial(attend_in_regions, exportable.attend))

AUTO = 'auto'
# What compilers get for it: the operator in their programs chooses.
_CHOSEN_BY_OPERATOR = BACKENDS['chunked']._replace(name=AUTO)
CHOICES = (AUTO, *BACKENDS)
VARIABLE = 'MMBIFORMER_ATTENTION_BACKEND'
# Read once: a value that changed between forward and backward would mix two backends.
_FROM_ENVIRONMENT = os.environ.get(VARIABLE, AUTO)


def choose(backend: str, inputs: Inputs) -> Backend:
    """The backend, one of :data:`CHOICES`, that computes these inputs.

    'auto' takes the environment's choice or, without one, what :func:`choose_auto` says.

    Raises:
        ValueError: If the backend is unknown or cannot run; says why, and who asked for it.
    """
    name, source = (_FROM_ENVIRONMENT, VARIABLE) if backend == AUTO else (backend, 'backend')
    if name not in CHOICES:
        raise ValueError(f"{source} '{name}' is unknown: choose from {', '.join(CHOICES)}")
    if is_exporting():
        return _EXPORTABLE
    if is_recorded():  # compilers cannot look into a log or a GPU; the operators do for them
        if name == AUTO:
            return _CHOSEN_BY_OPERATOR
        if BACKENDS[name].backward is not None:
            return BACKENDS[name]
    if name == AUTO:
        return choose_auto(inputs)
    check_can_run(BACKENDS[name], inputs, f' (from {VARIABLE})' if source == VARIABLE else '')
    return BACKENDS[name]


def choose_auto(inputs: Inputs) -> Backend:
    """'cpp' on CPUs and 'triton' on GPUs, where they run and are right, else 'chunked'; logged."""
    if not inputs.q.is_cuda:
        problem = cpp_backend.problem(inputs)
        name, why = ('chunked', f': {problem}') if problem else ('cpp', ', compiled for this CPU')
        _log_once(logging.INFO, name, why)
        return BACKENDS[name]
    fault = triton_backend.installation_problem()
    problem = fault or triton_backend.problem(inputs)
    if problem is None:
        fault = problem = kernel_check.problem(inputs)
    if problem is None:
        _log_once(logging.INFO, 'triton', ', whose kernels have passed their check on this GPU')
        return BACKENDS['triton']
    # A fault is to be mended; that the kernels do not serve all inputs is as it should be.
    _log_once(logging.WARNING if fault else logging.INFO, 'chunked', f' on this GPU: {problem}')
    return BACKENDS['chunked']


def check_can_run(backend: Backend, inputs: Inputs, source: str = '') -> None:
    """Raise ValueError with the reason where a backend cannot run on inputs."""
    if backend.problem and (problem := backend.problem(inputs)):
        raise ValueError(f"backend '{backend.name}'{source} cannot run: {problem}; take 'chunked'")


@functools.cache
def _log_once(level: int, name: str, why: str) -> None:
    logger.log(level, "routed attention: 'auto' takes backend '%s'%s", name, why)
