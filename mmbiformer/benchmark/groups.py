"""Measures a group: memory first, each row in a process of its own, then time, rows in turns."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from .cases import Case
from .cost import step_flops
from .device import synchronize
from .measure import count_saved_bytes, interleave
from .memory import KilledError, peak_bytes, reason, release_freed
from .steps import Step, build_step

Report = Callable[[str], None]
SMALL_SIZE = (64, 64)  # A step of this size goes before, and loads what any first step loads.


@dataclass
class Row:
    """What was measured of a case; None where a number is missing, and ``problems`` says why.

    Attributes:
        samples (list[float]): Seconds per step, one per round.
        flops (float): Operations that the step needs.
        peak_bytes (int): Peak memory over model and inputs.
        saved_bytes (int): Kept for the backward pass, parameters left out.
        problems (list[str]): One line each.
    """

    case: Case
    samples: list[float] = field(default_factory=list)
    flops: float | None = None
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Median time of a step."""
        return median(self.samples) if self.samples else None

    def as_dict(self) -> dict:
        """For JSON."""
        return {**asdict(self), 'seconds': self.seconds}


def measure_group(cases: list[Case], rounds: int, report: Report) -> list[Row]:
    """Measure cases that are to be compared.

    A case whose process was killed is left out of the next measurements, and its row says why.
    """
    rows = [Row(case) for case in cases]
    killed = []
    for row in rows:
        report(f'memory of {row.case.model}')
        if isinstance(_attempt(row, lambda row=row: _measure_memory(row)), KilledError):
            killed.append(row)
    steps = {}
    for row in rows:
        if row not in killed:
            report(f'building {row.case.model}')
            _attempt(row, lambda row=row: steps.update({row.case.model: _prepare(row)}))
    results = interleave(steps, rounds, cases[0].device, report)
    for row in rows:
        result = results.get(row.case.model)
        if isinstance(result, Exception):
            _note(row, result)
        elif result is not None:
            row.samples = result.samples
    return rows


def _attempt(row: Row, measure: Callable[[], None]) -> Exception | None:
    """What a case raises, be it out of memory or a backend that cannot run, is its result."""
    try:
        measure()
    except Exception as error:
        _note(row, error)
        return error
    return None


def _note(row: Row, error: Exception) -> None:
    """Say once what may go wrong with the memory, the building and the timing of a case alike."""
    if reason(error) not in row.problems:
        row.problems.append(reason(error))


def _measure_memory(row: Row) -> None:
    small = replace(row.case, size=SMALL_SIZE, batch_size=1)
    row.peak_bytes = peak_bytes(build_step, row.case, small, row.case.device)


def _prepare(row: Row) -> Step:
    """Build the step and take from it what needs no clock."""
    step = build_step(row.case)
    row.flops = step_flops(step)
    if row.case.mode == 'training':
        with count_saved_bytes(step.trained) as saved:
            loss = step.autocast_forward()
            row.saved_bytes = saved()
        del loss
        synchronize(row.case.device)
        release_freed()  # the rows take turns in one process, and some are large
    return step
