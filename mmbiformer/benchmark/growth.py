"""How cost grows with resolution: by the paper's formula, counted, and measured.

The paper (section 3.3) counts for a map of HW tokens and C channels, k routed regions of S x S

    3 HW C^2 + 2 (S^2)^2 C + 2 HW k (HW / S^2) C

The last two terms together are least where S grows as (HW)^(1/3), and then grow as (HW)^(4/3).
With S fixed they grow as (HW)^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, prod
from statistics import linear_regression

import torch

from .cases import ANCHOR_FACTOR, Case, Size, map_size, scaled_factor
from .cost import attention_flops, backbone_flops
from .families import FAMILY_OF
from .groups import Report
from .measure import Timing, interleave
from .memory import reason
from .models import build_backbone
from .steps import Step, attend, build_step, prepare_attention, route

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
        result (Timing | Exception): Seconds per forward pass, or why there are none.
    """

    rule: str
    part: str
    size: Size
    partition_factor: int
    flops: float
    result: Timing | Exception

    def as_dict(self) -> dict:
        """For JSON."""
        facts = {name: value for name, value in vars(self).items() if name != 'result'}
        if isinstance(self.result, Exception):
            return {**facts, 'problem': reason(self.result)}
        return {**facts, 'samples': self.result.samples}


def paper_attention_cost(tokens: int, dim: int, topk: int, partition_factor: float) -> float:
    """The paper's second and third term: routing, and attention to the routed regions."""
    regions = partition_factor**2
    return 2 * regions**2 * dim + 2 * tokens * topk * (tokens / regions) * dim


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The e of cost ~ size^e, by least squares on logarithms."""
    return linear_regression([log(x) for x in sizes], [log(x) for x in costs]).slope


def exponents(points: Sequence[Point], cost: Callable[[Point], float]) -> dict[tuple, float]:
    """Fitted exponent in the number of pixels for each (rule, part) that has all its points."""
    fits = {}
    for rule in RULES:
        for part in PARTS:
            chosen = [p for p in points if (p.rule, p.part) == (rule, part)]
            if not any(isinstance(p.result, Exception) for p in chosen):
                pixels = [prod(p.size) for p in chosen]
                fits[rule, part] = fit_exponent(pixels, [cost(p) for p in chosen])
    return fits


def paper_exponent(points: Sequence[Point], rule: str, arch: str) -> float:
    """The exponent of :func:`paper_attention_cost` over the measured sizes, with their S."""
    family = FAMILY_OF[arch]
    stage = family.main_stage
    dim, _, topk = family.layout(arch)[stage]
    chosen = [p for p in points if (p.rule, p.part) == (rule, 'attention')]
    costs = [
        paper_attention_cost(prod(map_size(p.size, stage)), dim, topk, p.partition_factor)
        for p in chosen
    ]
    return fit_exponent([prod(p.size) for p in chosen], costs)


def factor_of(rule: str, arch: str, size: Size) -> int:
    """S at a size: the paper's rule through 8 at 512 x 512, or 8 everywhere."""
    return ANCHOR_FACTOR if rule == 'fixed' else scaled_factor(arch, size)


def measure_growth(cases: Sequence[Case], rounds: int, report: Report) -> list[Point]:
    """Time the parts of inference at every size under both rules, all in turns.

    Args:
        cases (Sequence[Case]): One inference case of level 'backbone' per size; S is set here.
    """
    steps, facts = {}, {}
    for case in cases:
        for rule in RULES:
            factor = factor_of(rule, case.arch, case.size)
            case = replace(case, partition_factor=factor)
            for part in PARTS:
                step, flops = _BUILDERS[part](case)
                steps[rule, part, case.size] = step
                facts[rule, part, case.size] = (factor, flops)
    results = interleave(steps, rounds, cases[0].device, report)
    return [Point(*key, *facts[key], result) for key, result in results.items()]


def _backbone(case: Case) -> tuple[Step, float]:
    step = build_step(case)
    return step, backbone_flops(step.module, case.size) * case.batch_size


def _layer(case: Case) -> tuple[Step, float]:
    family = FAMILY_OF[case.arch]
    layer = family.attention(build_backbone(case), family.main_stage).to(case.device).eval()
    map_shape = map_size(case.size, family.main_stage)
    x = torch.randn(case.batch_size, *map_shape, layer.proj.out_features, device=case.device)
    weights = sum(p.numel() for p in layer.parameters() if p.ndim >= 2)
    flops = 2 * prod(map_shape) * weights + attention_flops(layer, prod(map_shape))
    return Step(case, lambda: layer(x), [], layer), flops * case.batch_size


def _attention(case: Case) -> tuple[Step, float]:
    layer, maps, pads = prepare_attention(case, FAMILY_OF[case.arch].main_stage)

    def forward() -> torch.Tensor:
        return attend(layer, maps, pads, route(layer, maps, pads), case.model)

    flops = attention_flops(layer, prod(maps[0].shape[1:3]))
    return Step(case, forward, [], layer), flops * case.batch_size


_BUILDERS = {'attention': _attention, 'layer': _layer, 'backbone': _backbone}
