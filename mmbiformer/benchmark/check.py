"""Level check: what a backend computes at full size, beside plain PyTorch in float64."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

import torch
from torch import Tensor

from mmbiformer.ops import routed_attention, routing_indices
from mmbiformer.ops.inputs import Inputs
from mmbiformer.ops.kernel_check import ALLOWED, RESULTS, Setup, in_float64, is_real, try_apart
from mmbiformer.tables import MISSING, format_table

from .cases import Case, map_size, size_name
from .device import DTYPES
from .families import FAMILY_OF
from .steps import prepare_attention

PADDINGS = 'official', 'masked'


@dataclass
class Verdict:
    """How far the results of one attention are off.

    Attributes:
        padding (str): 'official' or 'masked'.
        worst (str, optional): The result with the largest error beside what is allowed.
        error (float, optional): Its largest error, as a share of its largest value.
        allowed (float): The largest share that passes.
        problem (str, optional): Why the attention could not be computed.
    """

    case: Case
    padding: str
    tokens: int
    topk: int
    allowed: float
    worst: str | None = None
    error: float | None = None
    problem: str | None = None

    @property
    def outcome(self) -> str:
        """'passed', 'FAILED', or 'not run'."""
        if self.problem is not None:
            return 'not run'
        return 'passed' if self.error <= self.allowed else 'FAILED'

    def as_dict(self) -> dict:
        return {**asdict(self), 'outcome': self.outcome}


def check_stages(case: Case, precisions: list[str]) -> Iterator[Verdict]:
    """The attention of each routed stage, in each precision, with both kinds of padding."""
    topks = FAMILY_OF[case.arch].topks
    stages = [stage for stage, topk in enumerate(topks) if topk is not None]
    for stage, precision, padding in product(stages, precisions, PADDINGS):
        yield _check(replace(case, stage=stage, precision=precision), padding)


def first_use(case: Case, precisions: list[str]) -> dict[str, str]:
    """What the check of the kernels' first use says now, whatever is remembered of it."""
    _, inputs, _ = prepare_attention(case, FAMILY_OF[case.arch].main_stage)
    outcomes = {}
    for precision, padding in product(precisions, PADDINGS):
        dtype = str(DTYPES[precision]).removeprefix('torch.')
        where = f'{case.device}:{torch.cuda.current_device()}'
        setup = Setup(
            *(where, dtype, inputs.head_dim, case.partition_factor, padding == 'official')
        )
        outcomes[f'{precision}, {padding} padding'] = try_apart(setup) or 'passed'
    return outcomes


def _check(case: Case, padding: str) -> Verdict:
    _, inputs, _ = prepare_attention(case, case.stage)
    topk = inputs.indices.shape[2]
    if padding == 'masked':
        indices = routing_indices(inputs.q, inputs.k, topk, case.partition_factor)
        inputs = inputs._replace(indices=indices, pad_key=None, pad_value=None)
    verdict = Verdict(
        case, padding, inputs.partition.tokens, topk, ALLOWED[DTYPES[case.precision]]
    )
    torch.manual_seed(2)
    grad_out = torch.randn_like(inputs.q)
    try:
        found = _results(inputs, grad_out, case.model)
    except Exception as error:
        verdict.problem = f'{type(error).__name__}: {error}'
        return verdict
    truth = _results(in_float64(inputs), grad_out.double(), 'chunked')
    errors = {name: _error(x, truth[name]) for name, x in found.items()}
    verdict.worst = max(errors, key=errors.get)
    verdict.error = errors[verdict.worst]
    return verdict


def _results(inputs: Inputs, grad_out: Tensor, backend: str) -> dict[str, Tensor]:
    """The output, and the gradients of what is there to be differentiated."""
    arguments = {
        name: x.detach().requires_grad_() if is_real(x) else x
        for name, x in inputs._asdict().items()
    }
    leaves = [x for x in arguments.values() if is_real(x)]
    out = routed_attention(**arguments, backend=backend)
    grads = torch.autograd.grad(out, leaves, grad_out)
    return dict(zip(RESULTS, (out.detach(), *grads), strict=False))


def _error(x: Tensor, true: Tensor) -> float:
    """The largest error as a share of the largest value; infinite where a value is no number."""
    error, largest = (x.double() - true).abs().max().item(), true.abs().max().item()
    if largest:
        return error / largest if error == error else float('inf')
    return float('inf') if error else 0.0  # as the gradients of pads, where none is needed


def format_verdicts(verdicts: list[Verdict]) -> str:
    """A table, and under it why attentions could not be computed."""
    head = ['stage', 'map', 'tokens', 'topk', 'precision', 'padding']
    head += ['worst result', 'error', 'allowed', 'outcome']
    rows = []
    for x in verdicts:
        size = size_name(map_size(x.case.size, x.case.stage))
        place = str(x.case.stage + 1), size, str(x.tokens), str(x.topk)
        error = MISSING if x.error is None else f'{x.error:.2g}'
        outcome = x.worst or MISSING, error, f'{x.allowed:.2g}', x.outcome
        rows.append([*place, x.case.precision, x.padding, *outcome])
    problems = dict.fromkeys(x.problem for x in verdicts if x.problem)
    return '\n'.join([format_table(head, rows), *problems])
