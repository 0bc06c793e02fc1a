"""Measures a group: memory first, each row in a process of its own, then time, rows in turns."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from .cases import Case
from .cost import step_flops
from .device import synchronize
from .gpu import count_launches
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
        parameters (int): Of the model.
        peak_bytes (int): Peak memory over model and inputs.
        saved_bytes (int): Kept for the backward pass, parameters left out.
        launches (int): Kernels that a GPU runs in a step.
        busy_seconds (float): How long it computes in a step, without the waiting in between.
        problems (list[str]): One line each.
    """

    case: Case
    samples: list[float] = field(default_factory=list)
    flops: float | None = None
    parameters: int | None = None
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    launches: int | None = None
    busy_seconds: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Median time of a step."""
        return median(self.samples) if self.samples else None

    def note(self, error: Exception) -> None:
        """Say once what may go wrong with memory, building and timing alike."""
        if reason(error) not in self.problems:
            self.problems.append(reason(error))

    def as_dict(self) -> dict:
        """For JSON."""
        return {**asdict(self), 'seconds': self.seconds}


def measure_group(cases: list[Case], rounds: int, report: Report) -> list[Row]:
    """Measure cases that are to be compared.

    A case whose process was killed is left out of the next measurements, and its row says why.
    """
    rows = {case.row: Row(case) for case in cases}
    killed, steps = [], {}
    # What a case raises, be it out of memory or a backend that cannot run, is its result.
    for name, row in rows.items():
        report(f'memory of {name}')
        small = replace(row.case, size=SMALL_SIZE, batch_size=1)
        try:
            row.peak_bytes = peak_bytes(build_step, row.case, small, row.case.device)
        except Exception as error:
            row.note(error)
            if isinstance(error, KilledError):
                killed.append(name)
    for name in [name for name in rows if name not in killed]:
        report(f'building {name}')
        try:
            steps[name] = _prepare(rows[name])
        except Exception as error:
            rows[name].note(error)
    for name, result in interleave(steps, rounds, cases[0].device, report).items():
        if isinstance(result, Exception):
            rows[name].note(result)
        else:
            rows[name].samples = result
            if cases[0].device == 'cuda':
                rows[name].launches, rows[name].busy_seconds = count_launches(steps[name])
    return list(rows.values())


def _prepare(row: Row) -> Step:
    """Build the step and take from it what needs no clock."""
    step = build_step(row.case)
    row.flops = step_flops(step)
    row.parameters = sum(x.numel() for x in step.module.parameters())
    if row.case.mode == 'training':
        with count_saved_bytes(step.trained) as saved:
            loss = step.autocast_forward()
            row.saved_bytes = saved()
        del loss
        synchronize(row.case.device)
        release_freed()  # the rows take turns in one process, and some are large
    return step
