"""From the command line to tables, JSON and pictures."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median

from mmbiformer.errors import UserError
from mmbiformer.files import whole_or_absent
from mmbiformer.ops import BACKENDS

from . import memory
from .advice import candidates, factor_advice, format_advice, recommend
from .cases import Case, default_factor, groups_of, size_name
from .check import check_stages, first_use, format_verdicts
from .device import DTYPES, environment, matmul_rate
from .families import FAMILY_OF, arch_title
from .groups import SMALL_SIZE, Report, measure_group
from .growth import format_growth, measure_growth
from .measure import interleave
from .options import parse_options
from .pictures import draw_groups, draw_growth
from .report import format_floors, format_group
from .steps import build_step, default_backend

NOTES = (
    'official-style: benchmark-only twin of the official implementation, same weights and outputs '
    '(expanded gather of K and V, materialised softmax, pads computed, layout changed in blocks)',
    'ms: median over rounds in which the rows take turns; training: forward and backward, no '
    'optimizer; vs official, / Swin-T: ratios of medians',
    'tutorial-style: the same module of public tutorials in YOLOX-s, by the same twin',
    'GFLOP: products that real tokens need (Swin: with its own padding), a multiply-add is two; '
    'training counts 3 x forward',
    'saved MB: distinct storages that autograd keeps for the backward pass, parameters left out',
)

LAUNCHES = {
    'cpu': 'launches, and how long a GPU waits for them: not run, as a CUDA GPU alone has them',
    'cuda': 'launches: kernels of a step; GPU idle: the share of its time in which none runs, '
    'since the next is not launched yet: what a CUDA graph or --compile may win',
}


def main(description: str, configs: str, argv: list[str] | None = None) -> None:
    """Run the benchmark that the command line asks for.

    Args:
        description (str): For ``--help``.
        configs (str): Folder of the shipped configs, which has one folder per family.
        argv (list[str], optional): The command line; by default that of the program.
    """
    options = parse_options(description, argv)
    if options.level == 'growth':
        grow(options)
    elif options.level == 'advice':
        advise(options)
    elif options.level == 'check':
        check(options)
    else:
        compare(options, configs)


def compare(options: Namespace, configs: str) -> None:
    """Levels op, backbone, detector and plugin: rows side by side."""
    groups = groups_of(options, configs)
    facts = _print_facts(options)
    matmul = matmul_rate(options.device, options.precision)
    print(f'matmul   {matmul:,.0f} GFLOP/s, {options.precision}, best of a big square product')
    notes = [*NOTES, f'peak MB: {memory.HOW[options.device]}', LAUNCHES[options.device]]
    print('\n'.join(notes), flush=True)
    results = []
    for cases in groups:
        print(f'\n{cases[0].title}', flush=True)
        rows = measure_group(cases, options.repeats, _reporter())
        results.append(rows)
        print(format_group(rows, matmul), flush=True)
        if options.level in ('op', 'backbone') and (
            options.device == 'cuda' or options.cuda_graph
        ):
            print(format_floors(cases[0]))
    after = matmul_rate(options.device, options.precision)
    print(f'\nmatmul   {after:,.0f} GFLOP/s after the run')

    groups = [[row.as_dict() for row in rows] for rows in results]
    measured = dict(notes=notes, matmul_gflops=[matmul, after], groups=groups)
    stem = _write_json(options, [*map(size_name, options.size), *options.mode], facts, **measured)
    draw_groups(results, _caption(facts), stem.with_suffix('.png'))
    print(f'wrote {stem}.json and .png')


def grow(options: Namespace) -> None:
    """Level growth: cost of inference against resolution."""
    case = _inference_case(options)
    cases = [replace(case, size=size) for size in options.size]
    if len(cases) < 2:
        raise UserError('--level growth needs two sizes or more: --size 256 512 1024')
    facts = _print_facts(options)
    title = (
        f'growth of inference, {arch_title(case.arch)}, {case.model}, batch {case.batch_size}, '
        f'{case.precision}; attention and layer: of stage {FAMILY_OF[case.arch].main_stage + 1}'
    )
    print(f'\n{title}', flush=True)
    curves = measure_growth(cases, options.repeats, _reporter())
    print(f'\n{format_growth(curves, case.arch)}')
    points = [point.as_dict() for curve in curves.values() for point in curve]
    stem = _write_json(options, [case.model], facts, points=points)
    draw_growth(curves, f'{title}\n{_caption(facts)}', stem.with_suffix('.png'))
    print(f'wrote {stem}.json and .png')


def advise(options: Namespace) -> None:
    """Level advice: padding and cost of every sensible S."""
    case = _inference_case(options)
    facts = _print_facts(options)
    content = []
    for size in options.size:
        factors = candidates(case.arch, size)
        advices = [factor_advice(case.arch, size, s) for s in factors]
        times = {}
        if options.measure:
            times = _time_factors(replace(case, size=size), factors, options)
        print(f'\n{format_advice(case.arch, size, advices, times)}', flush=True)
        summary = {'size': size, 'recommended': recommend(advices), 'seconds': times}
        content.append({**summary, 'factors': [asdict(advice) for advice in advices]})
    stem = _write_json(options, [*map(size_name, options.size)], facts, advice=content)
    print(f'wrote {stem}.json')


def check(options: Namespace) -> None:
    """Level check: what backends compute, beside plain PyTorch in float64.

    Raises:
        SystemExit: With code 1, where a result is wrong or is not there.
    """
    precisions = [options.amp] if options.amp else list(DTYPES)
    facts = _print_facts(options)
    content, is_right = [], True
    for model, size in product(options.models or ['triton'], options.size):
        if model not in BACKENDS:
            raise UserError(
                f'--models {model}: level check takes backends: choose from {", ".join(BACKENDS)}'
            )
        s = options.partition_factor or default_factor(options.arch, size)
        where = options.arch, size, s, options.batch_size, options.device, 'fp32'
        case = Case('op', model, 'training', *where)
        verdicts = []
        for verdict in check_stages(case, precisions):
            _reporter()(f'stage {verdict.case.stage + 1}: {verdict.outcome}')
            verdicts.append(verdict)
        outcomes = {}
        if model == 'triton' and options.device == 'cuda':
            outcomes = first_use(case, precisions)
        print(f"\n'{model}', {arch_title(case.arch)} with S={s}, {size_name(size)}")
        print(format_verdicts(verdicts))
        print('\n'.join(f'check of first use, {name}: {x}' for name, x in outcomes.items()))
        content.append({'verdicts': [x.as_dict() for x in verdicts], 'first_use': outcomes})
        is_right &= all(x.outcome == 'passed' for x in verdicts)
        is_right &= all(x == 'passed' for x in outcomes.values())
    stem = _write_json(options, [*map(size_name, options.size)], facts, checks=content)
    print(f'wrote {stem}.json')
    if not is_right:
        raise SystemExit(1)


def _time_factors(case: Case, factors: Sequence[int], options: Namespace) -> dict:
    """Median seconds of the backbone per S, None where it cannot run."""
    steps = {s: build_step(replace(case, partition_factor=s)) for s in factors}
    results = interleave(steps, options.repeats, case.device, _reporter())
    return {s: None if isinstance(x, Exception) else median(x) for s, x in results.items()}


def _inference_case(options: Namespace) -> Case:
    """What growth and advice vary: inference of the backbone with one backend."""
    models, size = options.models, options.size[0]
    if models and (len(models) != 1 or models[0] not in BACKENDS):
        raise UserError(
            f'--models {" ".join(models)}: level {options.level} takes one backend of '
            f'{", ".join(BACKENDS)}'
        )
    where = options.arch, size, default_factor(options.arch, size)
    how = options.batch_size, options.device, options.precision
    case = Case('backbone', 'auto', 'inference', *where, *how)
    model = models[0] if models else default_backend(replace(case, size=SMALL_SIZE))
    return replace(case, model=model)


def _write_json(options: Namespace, names: list[str], facts: dict, **measured: list) -> Path:
    """Write what was measured, raw samples included; returns the path without its suffix.

    No run overwrites another's.
    """
    names = [options.level, options.arch, *names, options.device, options.precision]
    content = {'environment': facts, 'options': vars(options), **measured}
    stem = Path(options.out_dir, '_'.join([*names, time.strftime('%Y%m%d-%H%M%S')]))
    with whole_or_absent(stem.with_suffix('.json')) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + '\n')
    return stem


def _print_facts(options: Namespace) -> dict[str, str]:
    facts = environment(options.device)
    print('\n'.join(f'{name:8} {value}' for name, value in facts.items()), flush=True)
    return facts


def _caption(facts: dict[str, str]) -> str:
    what = f'{facts["machine"]}, {facts["threads"]} threads, torch {facts["torch"]}'
    return f'{what}, {facts["date"]}: {facts["command"]}'


def _reporter() -> Report:
    """Progress goes to stderr, so that a table in a file stays a table."""
    start = time.perf_counter()

    def report(line: str) -> None:
        print(f'  {time.perf_counter() - start:4.0f} s  {line}', file=sys.stderr, flush=True)

    return report
