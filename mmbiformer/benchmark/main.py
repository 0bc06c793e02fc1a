"""From the command line to tables, JSON and pictures."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mmbiformer.errors import UserError
from mmbiformer.ops import BACKENDS

from . import memory
from .advice import candidates, factor_advice, recommend
from .cases import Case, Size, default_factor, groups_of
from .device import environment, matmul_rate
from .families import FAMILY_OF, arch_title
from .groups import SMALL_SIZE, Report, measure_group
from .growth import measure_growth
from .measure import interleave
from .options import parse_options
from .pictures import draw_groups, draw_growth
from .report import format_group, write_json
from .scaling_report import format_advice, format_growth
from .steps import build_step, default_backend

NOTES = (
    'official-style: benchmark-only twin of the official implementation, same weights and outputs '
    '(expanded gather of K and V, materialised softmax, pads computed, layout changed in blocks)',
    'ms: median over rounds in which the rows take turns; training: forward and backward, no '
    'optimizer; vs official, / Swin-T: ratios of medians',
    'GFLOP: products that real tokens need (Swin: with its own padding), a multiply-add is two; '
    'training counts 3 x forward',
    'saved MB: distinct storages that autograd keeps for the backward pass, parameters left out',
)


def main(description: str, configs: str) -> None:
    """Run the benchmark that the command line asks for.

    Args:
        description (str): For ``--help``.
        configs (str): Folder of the shipped configs, which has one folder per family.
    """
    options = parse_options(description)
    facts = environment(options.device)
    if options.level == 'growth':
        grow(options, facts)
    elif options.level == 'advice':
        advise(options, facts)
    else:
        compare(options, facts, configs)


def compare(options: Namespace, facts: dict[str, str], configs: str) -> None:
    """Levels op, backbone and detector: rows side by side."""
    groups = groups_of(
        options.level,
        options.models,
        options.mode,
        options.size,
        options.partition_factor,
        configs=configs,
        **_shared(options),
    )
    _print_facts(facts)
    matmul = matmul_rate(options.device, options.precision)
    print(f'matmul   {matmul:,.0f} GFLOP/s, {options.precision}, best of a big square product')
    notes = [*NOTES, f'peak MB: {memory.HOW[options.device]}']
    print('\n'.join(notes), flush=True)
    results = []
    for cases in groups:
        print(f'\n{cases[0].title}', flush=True)
        rows = measure_group(cases, options.repeats, _reporter())
        results.append(rows)
        print(format_group(rows, matmul), flush=True)
    after = matmul_rate(options.device, options.precision)
    print(f'\nmatmul   {after:,.0f} GFLOP/s after the run')

    stem = _stem(options, *_names(options.size), *options.mode)
    content = {
        'environment': facts,
        'notes': notes,
        'options': vars(options),
        'matmul_gflops': [matmul, after],
        'groups': [[row.as_dict() for row in rows] for rows in results],
    }
    write_json(stem.with_suffix('.json'), content)
    draw_groups(results, _caption(facts), stem.with_suffix('.png'))
    print(f'wrote {stem}.json and .png')


def grow(options: Namespace, facts: dict[str, str]) -> None:
    """Level growth: cost of inference against resolution."""
    case = _inference_case(options)
    cases = [replace(case, size=size) for size in options.size]
    if len(cases) < 2:
        raise UserError('--level growth needs two sizes or more: --size 256 512 1024')
    _print_facts(facts)
    title = (
        f'growth of inference, {arch_title(case.arch)}, {case.model}, batch {case.batch_size}, '
        f'{case.precision}; attention and layer: of stage {FAMILY_OF[case.arch].main_stage + 1}'
    )
    print(f'\n{title}', flush=True)
    points = measure_growth(cases, options.repeats, _reporter())
    print(f'\n{format_growth(points, case.arch)}')
    stem = _stem(options, case.model)
    write_json(
        stem.with_suffix('.json'),
        {'environment': facts, 'options': vars(options), 'points': [p.as_dict() for p in points]},
    )
    draw_growth(points, f'{title}\n{_caption(facts)}', stem.with_suffix('.png'))
    print(f'wrote {stem}.json and .png')


def advise(options: Namespace, facts: dict[str, str]) -> None:
    """Level advice: padding and cost of every sensible S."""
    case = _inference_case(options)
    _print_facts(facts)
    content = {'environment': facts, 'options': vars(options), 'advice': []}
    for size in options.size:
        factors = candidates(options.arch, size)
        advices = [factor_advice(options.arch, size, s) for s in factors]
        times = {}
        if options.measure:
            times = _time_factors(replace(case, size=size), factors, options)
        print(f'\n{format_advice(options.arch, size, advices, times)}', flush=True)
        summary = {'size': size, 'recommended': recommend(advices), 'seconds': times}
        content['advice'].append({**summary, 'factors': [asdict(advice) for advice in advices]})
    stem = _stem(options, *_names(options.size))
    write_json(stem.with_suffix('.json'), content)
    print(f'wrote {stem}.json')


def _time_factors(case: Case, factors: Sequence[int], options: Namespace) -> dict:
    """Median seconds of the backbone per S, None where it cannot run."""
    steps = {s: build_step(replace(case, partition_factor=s)) for s in factors}
    results = interleave(steps, options.repeats, case.device, _reporter())
    return {s: getattr(result, 'median', None) for s, result in results.items()}


def _inference_case(options: Namespace) -> Case:
    """What growth and advice vary: inference of the backbone with one backend."""
    models = options.models
    if models and (len(models) != 1 or models[0] not in BACKENDS):
        raise UserError(
            f'--models {" ".join(models)}: level {options.level} takes one backend of '
            f'{", ".join(BACKENDS)}'
        )
    size = options.size[0]
    given = dict(_shared(options), partition_factor=default_factor(options.arch, size))
    case = Case('backbone', 'auto', 'inference', size=size, **given)
    small = replace(case, size=SMALL_SIZE)
    return replace(case, model=models[0] if models else default_backend(small))


def _shared(options: Namespace) -> dict:
    """What all cases of a run have in common."""
    return {name: getattr(options, name) for name in ('arch', 'batch_size', 'device', 'precision')}


def _stem(options: Namespace, *parts: str) -> Path:
    """Path of the files of a run, without their suffix: no run overwrites another's."""
    names = [options.level, options.arch, *parts, options.device, options.precision]
    return Path(options.out_dir, '_'.join([*names, time.strftime('%Y%m%d-%H%M%S')]))


def _names(sizes: Sequence[Size]) -> list[str]:
    return [f'{height}x{width}' for height, width in sizes]


def _print_facts(facts: dict[str, str]) -> None:
    print('\n'.join(f'{name:8} {value}' for name, value in facts.items()), flush=True)


def _caption(facts: dict[str, str]) -> str:
    what = f'{facts["machine"]}, {facts["threads"]} threads, torch {facts["torch"]}'
    return f'{what}, {facts["date"]}: {facts["command"]}'


def _reporter() -> Report:
    """Progress goes to stderr, so that a table in a file stays a table."""
    start = time.perf_counter()

    def report(line: str) -> None:
        print(f'  {time.perf_counter() - start:4.0f} s  {line}', file=sys.stderr, flush=True)

    return report
