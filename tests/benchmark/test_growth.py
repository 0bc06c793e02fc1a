"""The growth law: the formula, the fit, and the two rules for S."""

from itertools import product
from math import prod

import pytest

from mmbiformer.benchmark import growth
from mmbiformer.benchmark.cases import Case, scaled_factor
from mmbiformer.benchmark.growth import (
    PARTS,
    RULES,
    Point,
    exponents,
    factor_of,
    fit_exponent,
    format_growth,
    measure_growth,
    paper_attention_cost,
    paper_exponent,
)


@pytest.mark.parametrize('exponent', [1.0, 4 / 3, 2.0])
def test_fit_finds_a_known_exponent(exponent) -> None:
    sizes = [100, 250, 900, 5000]
    assert fit_exponent(sizes, [3 * x**exponent for x in sizes]) == pytest.approx(exponent)
    noisy = [3 * x**exponent * (1.1, 0.9)[i % 2] for i, x in enumerate(sizes)]
    assert fit_exponent(sizes, noisy) == pytest.approx(exponent, abs=0.1)


def test_paper_formula_against_a_loop() -> None:
    tokens, dim, topk, s = 36, 5, 2, 3
    routing = sum(2 * dim for _query in range(s**2) for _key in range(s**2))
    attention = sum(
        2 * dim  # query times key, weight times value
        for _query in range(tokens)
        for _region in range(topk)
        for _key in range(tokens // s**2)
    )
    assert paper_attention_cost(tokens, dim, topk, s) == routing + attention


def test_the_paper_s_exponents_follow_from_its_formula() -> None:
    sizes = [10.0**n for n in range(4, 10)]
    scaled = [paper_attention_cost(n, 64, 4, 0.5 * n ** (1 / 3)) for n in sizes]
    fixed = [paper_attention_cost(n, 64, 4, 8) for n in sizes]
    assert fit_exponent(sizes, scaled) == pytest.approx(growth.PAPER_EXPONENTS['scaled'])
    assert fit_exponent(sizes, fixed) == pytest.approx(growth.PAPER_EXPONENTS['fixed'], abs=1e-3)
    # No other S is cheaper than one that grows so.
    for n in sizes:
        best = (4 / 2) ** (1 / 6) * n ** (1 / 3)
        for other in (0.9 * best, 1.1 * best):
            assert paper_attention_cost(n, 64, 4, best) < paper_attention_cost(n, 64, 4, other)


def test_rules_for_s() -> None:
    sizes = [(64, 64), (256, 256), (512, 512), (800, 1344), (1448, 1448)]
    assert [scaled_factor('s', size) for size in sizes] == [4, 5, 8, 13, 16]
    assert [factor_of('scaled', 's', size) for size in sizes] == [4, 5, 8, 13, 16]
    assert [factor_of('fixed', 's', size) for size in sizes] == [8] * 5


def point(rule: str, part: str, side: int, seconds: float | None, flops: float = 1.0) -> Point:
    result = MemoryError('full') if seconds is None else [seconds]
    return Point(rule, part, (side, side), factor_of(rule, 's', (side, side)), flops, result)


def test_exponents_are_fitted_per_rule_and_part() -> None:
    curves = {
        (rule, part): [point(rule, part, side, side**2.0) for side in (512, 1024, 2048)]
        for rule, part in product(RULES, PARTS)
    }
    curves['fixed', 'layer'][0] = point('fixed', 'layer', 512, None)
    fits = exponents(curves, lambda p: p.seconds)
    assert fits['scaled', 'layer'] == pytest.approx(1.0)
    assert ('fixed', 'layer') not in fits
    assert len(fits) == 5
    # The formula with S scaled and rounded is near its limit, with S fixed below it.
    assert paper_exponent(curves['scaled', 'attention'], 's') == pytest.approx(4 / 3, abs=0.02)
    assert 1.9 < paper_exponent(curves['fixed', 'attention'], 's') < 2
    assert 'layer: n/a: MemoryError: full' in format_growth(curves, 's')


def test_measured_points() -> None:
    sizes = [(64, 64), (96, 64)]
    cases = [
        Case('backbone', 'reference', 'inference', 't', size, 4, 1, 'cpu', 'fp32')
        for size in sizes
    ]
    # Curves begin with the smallest size, in whichever order the sizes are asked for.
    curves = measure_growth(cases[::-1], rounds=1, report=lambda line: None)
    assert list(curves) == list(product(RULES, PARTS))
    for (rule, part), points in curves.items():
        assert [(p.rule, p.part, p.size) for p in points] == [(rule, part, x) for x in sizes]
    points = [point for curve in curves.values() for point in curve]
    assert all(p.partition_factor == factor_of(p.rule, 't', p.size) for p in points)
    assert all(p.seconds > 0 for p in points)
    flops = {(p.rule, p.part, p.size): p.flops for p in points}
    for rule in RULES:
        for size in sizes:
            attention, layer, backbone = (flops[rule, part, size] for part in PARTS)
            assert 0 < attention < layer < backbone
    # Projections, local context and output: 4 C^2 + 25 C weights per token.
    tokens, dim = prod(sizes[0]) // 16**2, 256
    difference = flops['fixed', 'layer', sizes[0]] - flops['fixed', 'attention', sizes[0]]
    assert difference == 2 * tokens * (4 * dim**2 + 25 * dim)
