"""The table of a group, and numbers as all tables show them."""

from functools import partial

from mmbiformer.tables import MISSING, format_table

from .cases import OFFICIAL, PLAIN, Case
from .floors import GPUS, backbone_floors, stage_floors
from .groups import Row

BLANK = '-'  # what follows from a number that is missing, or has nothing to be compared with
SWIN = 'swin-t'
# Levels whose rows are compared with one of them -> that row, and what the column calls it.
FIRST_ROWS = {'plugin': (PLAIN, 'YOLOX-s'), 'ablation': ('shifted_window', 'shifted')}


def milliseconds(seconds: float | None) -> str:
    return MISSING if seconds is None else three_digits(seconds * 1e3)


def three_digits(value: float) -> str:
    """About three digits, and all of those before the point."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f'{value:.{decimals}f}'


def megabytes(count: float | None) -> str:
    return BLANK if count is None else f'{count / 1e6:,.0f}'


def format_group(rows: list[Row], matmul: float) -> str:
    """The table of a group; under it, one line for each thing that could not be measured.

    Args:
        rows (list[Row]): Of one group.
        matmul (float): Rate of a big matrix product, GFLOP/s.
    """
    case = rows[0].case
    reference = {row.case.row: row.seconds for row in rows}
    head = ['model', 'ms', 'min-max', 'images/s', 'GFLOP', 'GFLOP/s', '% of matmul', 'peak MB']
    if case.mode == 'training':
        head.append('saved MB')
    if case.device == 'cuda':
        head += ['launches', 'GPU idle']
    if case.level in FIRST_ROWS:
        head += ['M parameters', f'/ {FIRST_ROWS[case.level][1]}']
    else:
        head += ['vs official', '/ Swin-T'] if case.level != 'op' else ['vs official']
    table = format_table(head, [_cells(row, matmul, reference)[: len(head)] for row in rows])
    problems = [f'{row.case.row}: {MISSING}: {x}' for row in rows for x in row.problems]
    return '\n'.join([table, *problems])


def format_floors(case: Case) -> str:
    """The least time of the routed attention of a group's step on GPUs, a line for each."""
    if case.level == 'op':
        what, floors = 'this attention', partial(stage_floors, case.arch, case.stage)
    else:
        what, floors = 'all routed attention', partial(backbone_floors, case.arch)
    lines = []
    for gpu in GPUS:
        times = floors(case.size, case.partition_factor, case.batch_size, gpu)
        forward, backward = (milliseconds(time) for time in times)
        lines.append(
            f'floor of {what} in bf16 on one {gpu}, worked out and not measured: '
            f'forward {forward} ms, backward {backward} ms'
        )
    return '\n'.join(lines)


def _cells(row: Row, matmul: float, reference: dict[str, float | None]) -> list[str]:
    case, seconds = row.case, row.seconds
    saved = [megabytes(row.saved_bytes)] if case.mode == 'training' else []
    if seconds is None:
        unknown = [BLANK] * (4 if case.device == 'cuda' else 2)
        return [case.row, MISSING, *[BLANK] * 5, megabytes(row.peak_bytes), *saved, *unknown]
    launched = []
    if case.device == 'cuda':
        launched = [str(row.launches), f'{100 * (1 - row.busy_seconds / seconds):.0f}%']
    official, swin = (reference.get(name) for name in (OFFICIAL, SWIN))
    rate = row.flops / seconds / 1e9
    if case.level in FIRST_ROWS:
        first = reference.get(FIRST_ROWS[case.level][0])
        ratio = f'{seconds / first:.2f}' if first else BLANK
        compared = [f'{row.parameters / 1e6:.2f}', ratio]
    else:
        compared = [
            f'{official / seconds:.2f} x' if official else BLANK,
            f'{seconds / swin:.2f}' if swin else BLANK,
        ]
    return [
        case.row,
        milliseconds(seconds),
        f'{milliseconds(min(row.samples))}-{milliseconds(max(row.samples))}',
        three_digits(case.batch_size / seconds),
        three_digits(row.flops / 1e9),
        three_digits(rate),
        f'{100 * rate / matmul:.0f}%',
        megabytes(row.peak_bytes),
        *saved,
        *launched,
        *compared,
    ]
