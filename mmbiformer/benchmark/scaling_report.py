"""Tables of growth and advice."""

from collections.abc import Sequence
from math import prod

from mmbiformer.tables import MISSING, format_table

from .advice import RULE, FactorAdvice, recommend
from .cases import SHIPPED_FACTORS, SHIPPED_TASKS, Size
from .families import arch_title
from .growth import PAPER_EXPONENTS, PARTS, RULES, Point, exponents, paper_exponent
from .measure import Timing
from .memory import reason
from .report import milliseconds, three_digits


def format_growth(points: Sequence[Point], arch: str) -> str:
    """One table per rule, then the fitted exponents beside the paper's."""
    tables = [_growth_table([p for p in points if p.rule == rule]) for rule in RULES]
    problems = {
        f'{p.part}: n/a: {reason(p.result)}' for p in points if isinstance(p.result, Exception)
    }
    return '\n\n'.join([*tables, _exponent_table(points, arch), *sorted(problems)])


def _growth_table(points: Sequence[Point]) -> str:
    sizes = sorted({p.size for p in points}, key=prod)
    by_part = {(p.part, p.size): p for p in points}
    head = ['size', 'S', *(f'{part} {unit}' for part in PARTS for unit in ('GFLOP', 'ms'))]
    rows = []
    for size in sizes:
        cells = [f'{size[0]}x{size[1]}', str(by_part[PARTS[0], size].partition_factor)]
        for part in PARTS:
            point = by_part[part, size]
            timed = isinstance(point.result, Timing)
            time = milliseconds(point.result.median) if timed else MISSING
            cells += [f'{point.flops / 1e9:.3g}', time]
        rows.append(cells)
    rule = 'S ~ (HW)^(1/3), 8 at 512x512' if points[0].rule == 'scaled' else 'S fixed'
    return f'{rule}\n{format_table(head, rows)}'


def _exponent_table(points: Sequence[Point], arch: str) -> str:
    counted = exponents(points, lambda p: p.flops)
    timed = exponents(points, lambda p: p.result.median)
    head = ['exponent e of cost ~ (HW)^e', *(f'S {rule}' for rule in RULES)]
    values = {
        f'{part}, {name}': [fits.get((rule, part)) for rule in RULES]
        for part in PARTS
        for name, fits in (('counted', counted), ('measured', timed))
    }
    formula = [paper_exponent(points, rule, arch) for rule in RULES]
    values["attention, paper's formula at these sizes"] = formula
    values["attention, paper's limit"] = [PAPER_EXPONENTS[rule] for rule in RULES]
    cells = {k: [MISSING if x is None else f'{x:.2f}' for x in v] for k, v in values.items()}
    return format_table(head, [[name, *row] for name, row in cells.items()])


def format_advice(
    arch: str, size: Size, advices: Sequence[FactorAdvice], times: dict[int, float | None]
) -> str:
    """The candidates for S at a size, the recommended one marked.

    Args:
        times (dict): Median seconds of the backbone per S; empty where nothing was timed.
    """
    best = recommend(advices)
    num_stages = len(advices[0].stages)
    head = ['S']
    head += [f'region {i + 1}' for i in range(num_stages)]
    head += [f'padded {i + 1}' for i in range(num_stages)]
    head += ['all-pad regions', 'keys per query', 'GFLOP needed', 'pads computed']
    head += ['backbone ms'] if times else []
    rows = []
    for advice in advices:
        s = advice.partition_factor
        line = [f'{s}{" *" if s == best else ""}']
        line += [f'{stage.region[0]}x{stage.region[1]}' for stage in advice.stages]
        line += [f'x{stage.waste:.2f}' for stage in advice.stages]
        line += ['/'.join(str(stage.empty_regions) for stage in advice.stages)]
        line += ['/'.join(str(stage.keys) for stage in advice.stages)]
        line += [three_digits(advice.needed_flops / 1e9), three_digits(advice.padded_flops / 1e9)]
        if times:
            line.append(milliseconds(times[s]) if times[s] else MISSING)
        rows.append(line)
    title = f'S for {arch_title(arch)} at {size[0]}x{size[1]}; attention of the routed stages'
    return '\n'.join([title, format_table(head, rows), f'* {RULE}', _shipped(size)])


def _shipped(size: Size) -> str:
    known = [
        f'S={s} for {SHIPPED_TASKS[s]} at {height}x{width}'
        for (height, width), s in SHIPPED_FACTORS.items()
    ]
    here = SHIPPED_FACTORS.get(size)
    return (
        f'paper and shipped configs: {", ".join(known)}'
        + (f'; at this size S={here}. ' if here else '. ')
        + 'Fewer keys per query are cheaper and see less: train with the S that is used.'
    )
