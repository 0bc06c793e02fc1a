"""How cost grows with resolution: by the paper's formula, counted, and measured.

The paper (section 3.3) counts for a map of HW tokens and C channels, k routed regions of S x S

    3 HW C^2 + 2 (S^2)^2 C + 2 HW k (HW / S^2) C

The last two terms together are least where S grows as (HW)^(1/3), and then grow as (HW)^(4/3).
With S fixed they grow as (HW)^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log, prod
from statistics import linear_regression, median

import torch

from mmbiformer.ops import routed_attention, routing_indices
from mmbiformer.tables import MISSING, format_table

from .cases import ANCHOR_FACTOR, Case, Size, map_size, scaled_factor, size_name
from .cost import attention_flops, step_flops, weight_flops
from .families import FAMILY_OF
from .groups import Report
from .measure import interleave
from .memory import reason
from .models import build_backbone
from .report import milliseconds
from .steps import Step, build_step, prepare_attention

RULES = ('scaled', 'fixed')
PARTS = ('attention', 'layer', 'backbone')
# What the paper says of the attention's two terms.
PAPER_EXPONENTS = {'scaled': 4 / 3, 'fixed': 2.0}


@dataclass
class Point:
    """Cost of one part at one resolution.

    Attributes:
        rule (str): 'scaled' or 'fixed': how S follows the resolution.
        part (str): 'attention' without projections, the 'layer' with them, or the 'backbone'.
        flops (float): Operations that real tokens need.
        result (list[float] | Exception): Seconds per forward pass, or why there are none.
    """

    rule: str
    part: str
    size: Size
    partition_factor: int
    flops: float
    result: list[float] | Exception

    @property
    def seconds(self) -> float | None:
        """Median time of a forward pass."""
        return None if self.problem else median(self.result)

    @property
    def problem(self) -> str | None:
        """Why there is no time, in one line."""
        return reason(self.result) if isinstance(self.result, Exception) else None

    def as_dict(self) -> dict:
        """For JSON."""
        facts = dict(vars(self))
        result = facts.pop('result')
        return facts | ({'problem': self.problem} if self.problem else {'samples': result})


# (rule, part) -> its points, from the smallest size to the largest.
Curves = dict[tuple[str, str], list[Point]]


def paper_attention_cost(tokens: int, dim: int, topk: int, partition_factor: float) -> float:
    """The paper's second and third term: routing, and attention to the routed regions."""
    regions = partition_factor**2
    return 2 * regions**2 * dim + 2 * tokens * topk * (tokens / regions) * dim


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The e of cost ~ size^e, by least squares on logarithms."""
    return linear_regression([log(x) for x in sizes], [log(x) for x in costs]).slope


def exponents(curves: Curves, cost: Callable[[Point], float]) -> dict[tuple[str, str], float]:
    """Fitted exponent in the number of pixels for each (rule, part) that has all its points."""
    return {
        key: fit_exponent([prod(p.size) for p in points], [cost(p) for p in points])
        for key, points in curves.items()
        if not any(p.problem for p in points)
    }


def paper_exponent(points: Sequence[Point], arch: str) -> float:
    """The exponent of :func:`paper_attention_cost` over the sizes of points, with their S."""
    family = FAMILY_OF[arch]
    stage = family.main_stage
    dim, _, topk = family.layout(arch)[stage]
    costs = [
        paper_attention_cost(prod(map_size(p.size, stage)), dim, topk, p.partition_factor)
        for p in points
    ]
    return fit_exponent([prod(p.size) for p in points], costs)


def factor_of(rule: str, arch: str, size: Size) -> int:
    """S at a size: the paper's rule through 8 at 512 x 512, or 8 everywhere."""
    return ANCHOR_FACTOR if rule == 'fixed' else scaled_factor(arch, size)


def measure_growth(cases: Sequence[Case], rounds: int, report: Report) -> Curves:
    """Time the parts of inference at every size under both rules, all in turns.

    Args:
        cases (Sequence[Case]): One inference case of level 'backbone' per size; S is set here.
    """
    steps, flops = {}, {}
    by_size = sorted(cases, key=lambda case: prod(case.size))
    for case, rule, part in product(by_size, RULES, PARTS):
        factor = factor_of(rule, case.arch, case.size)
        key = rule, part, case.size, factor
        steps[key], flops[key] = _BUILDERS[part](replace(case, partition_factor=factor))
    results = interleave(steps, rounds, cases[0].device, report)
    curves = {key: [] for key in product(RULES, PARTS)}
    for key, result in results.items():
        curves[key[:2]].append(Point(*key, flops[key], result))
    return curves


def _backbone(case: Case) -> tuple[Step, float]:
    step = build_step(case)
    return step, step_flops(step)


def _layer(case: Case) -> tuple[Step, float]:
    family = FAMILY_OF[case.arch]
    layer = family.attention(build_backbone(case), family.main_stage).to(case.device).eval()
    map_shape = map_size(case.size, family.main_stage)
    x = torch.randn(case.batch_size, *map_shape, layer.proj.out_features, device=case.device)
    flops = weight_flops(layer, prod(map_shape)) + attention_flops(layer, prod(map_shape))
    return Step(case, lambda: layer(x), [], layer), flops * case.batch_size


def _attention(case: Case) -> tuple[Step, float]:
    layer, inputs, pad_query = prepare_attention(case, FAMILY_OF[case.arch].main_stage)
    q, k, s = inputs.q, inputs.k, inputs.partition_factor

    def forward() -> torch.Tensor:
        indices = routing_indices(q, k, layer.topk, s, pad_query, inputs.pad_key)
        return routed_attention(**inputs._replace(indices=indices)._asdict(), backend=case.model)

    flops = attention_flops(layer, prod(q.shape[1:3]))
    return Step(case, forward, [], layer), flops * case.batch_size


_BUILDERS = {'attention': _attention, 'layer': _layer, 'backbone': _backbone}


def format_growth(curves: Curves, arch: str) -> str:
    """One table per rule, then the fitted exponents beside the paper's."""
    tables = [_growth_table(rule, curves) for rule in RULES]
    points = [point for curve in curves.values() for point in curve]
    problems = {f'{p.part}: {MISSING}: {p.problem}' for p in points if p.problem}
    return '\n\n'.join([*tables, _exponent_table(curves, arch), *sorted(problems)])


def _growth_table(rule: str, curves: Curves) -> str:
    head = ['size', 'S', *(f'{part} {unit}' for part in PARTS for unit in ('GFLOP', 'ms'))]
    rows = []
    for points in zip(*(curves[rule, part] for part in PARTS), strict=True):
        cells = [x for p in points for x in (f'{p.flops / 1e9:.3g}', milliseconds(p.seconds))]
        rows.append([size_name(points[0].size), str(points[0].partition_factor), *cells])
    title = 'S ~ (HW)^(1/3), 8 at 512x512' if rule == 'scaled' else 'S fixed'
    return f'{title}\n{format_table(head, rows)}'


def _exponent_table(curves: Curves, arch: str) -> str:
    counted = exponents(curves, lambda p: p.flops)
    timed = exponents(curves, lambda p: p.seconds)
    rows = {}
    for part in PARTS:
        rows[f'{part}, counted'] = [counted.get((rule, part)) for rule in RULES]
        rows[f'{part}, measured'] = [timed.get((rule, part)) for rule in RULES]
    formula = [paper_exponent(curves[rule, 'attention'], arch) for rule in RULES]
    rows["attention, paper's formula at these sizes"] = formula
    rows["attention, paper's limit"] = [PAPER_EXPONENTS[rule] for rule in RULES]
    cells = [[name, *(MISSING if x is None else f'{x:.2f}' for x in rows[name])] for name in rows]
    return format_table(['exponent e of cost ~ (HW)^e', *(f'S {rule}' for rule in RULES)], cells)
