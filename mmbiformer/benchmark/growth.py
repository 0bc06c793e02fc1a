"""How cost grows with resolution: by the paper's formula, counted, and measured.

The paper (section 3.3) counts for a map of HW tokens and C channels, k routed regions of S x S

    3 HW C^2 + 2 (S^2)^2 C + 2 HW k (HW / S^2) C

The last two terms together are least where S grows as (HW)^(1/3), and then grow as (HW)^(4/3).
With S fixed they grow as (HW)^2.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, prod
from statistics import linear_regression

import torch

from mmbiformer.backbones import BiFormer
from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.ops import routed_attention, routing_indices

from .cases import ANCHOR_FACTOR, Case, Size, layout_of, map_size, scaled_factor
from .cost import attention_flops, biformer_flops
from .device import DTYPES
from .groups import Report
from .measure import Timing, interleave
from .memory import reason
from .models import build_biformer
from .steps import Step, build_step

STAGE = 2  # the third stage has most of the blocks
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
        failed = isinstance(self.result, Exception)
        found = {'problem': reason(self.result)} if failed else {'samples': self.result.samples}
        names = ('rule', 'part', 'size', 'partition_factor', 'flops')
        return {**{name: getattr(self, name) for name in names}, **found}


def paper_attention_cost(tokens: int, dim: int, topk: int, partition_factor: float) -> float:
    """The paper's second and third term: routing, and attention to the routed regions."""
    regions = partition_factor**2
    return 2 * regions**2 * dim + 2 * tokens * topk * (tokens / regions) * dim


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The e of cost ~ size^e, by least squares on logarithms."""
    return linear_regression([log(x) for x in sizes], [log(x) for x in costs]).slope


def exponents(points: Sequence[Point], cost: Callable[[Point], float]) -> dict[tuple, float]:
    """Fitted exponent in the number of pixels for each (rule, part) that has all its points."""
    found = {}
    for rule in RULES:
        for part in PARTS:
            chosen = [p for p in points if (p.rule, p.part) == (rule, part)]
            if not any(isinstance(p.result, Exception) for p in chosen):
                pixels = [prod(p.size) for p in chosen]
                found[rule, part] = fit_exponent(pixels, [cost(p) for p in chosen])
    return found


def paper_exponent(points: Sequence[Point], rule: str, arch: str) -> float:
    """The exponent of :func:`paper_attention_cost` over the measured sizes, with their S."""
    dim, _, topk = layout_of(arch)[STAGE]
    chosen = [p for p in points if (p.rule, p.part) == (rule, 'attention')]
    costs = [
        paper_attention_cost(prod(map_size(p.size, STAGE)), dim, topk, p.partition_factor)
        for p in chosen
    ]
    return fit_exponent([prod(p.size) for p in chosen], costs)


def factor_of(rule: str, size: Size) -> int:
    """S at a size: the paper's rule through 8 at 512 x 512, or 8 everywhere."""
    return ANCHOR_FACTOR if rule == 'fixed' else scaled_factor(size)


def measure_growth(cases: Sequence[Case], rounds: int, report: Report) -> list[Point]:
    """Time the parts of inference at every size under both rules, all in turns.

    Args:
        cases (Sequence[Case]): One inference case of level 'backbone' per size; S is set here.
    """
    steps, facts = {}, {}
    for case in cases:
        for rule in RULES:
            factor = factor_of(rule, case.size)
            case = replace(case, partition_factor=factor)
            for part in PARTS:
                step, flops = _BUILDERS[part](case)
                steps[rule, part, case.size] = step
                facts[rule, part, case.size] = (factor, flops)
    results = interleave(steps, rounds, cases[0].device, report)
    return [Point(*key, *facts[key], result) for key, result in results.items()]


def _backbone(case: Case) -> tuple[Step, float]:
    step = build_step(case)
    return step, biformer_flops(step.module, case.size) * case.batch_size


def _layer_module(case: Case) -> tuple[BiLevelRoutingAttention, tuple[int, ...]]:
    """The routed attention of the third stage, and the shape of its map."""
    attention = build_biformer(case).stages[STAGE][0].attn.to(case.device).eval()
    return attention, (case.batch_size, *map_size(case.size, STAGE), attention.proj.out_features)


def _layer(case: Case) -> tuple[Step, float]:
    attention, shape = _layer_module(case)
    x = torch.randn(shape, device=case.device)
    tokens = prod(shape[1:3])
    weights = sum(p.numel() for p in attention.parameters() if p.ndim >= 2)
    flops = 2 * tokens * weights + attention_flops(attention, tokens)
    return Step(case, lambda: attention(x), []), flops * case.batch_size


def _attention(case: Case) -> tuple[Step, float]:
    attention, shape = _layer_module(case)
    q, k, v = torch.randn(3, *shape, device=case.device, dtype=DTYPES[case.precision])
    pads = attention.qkv.bias.detach().chunk(3)
    s = case.partition_factor

    def forward() -> torch.Tensor:
        return routed_attention(
            *(q, k, v, routing_indices(q, k, attention.topk, s, *pads[:2])),
            partition_factor=s,
            num_heads=attention.num_heads,
            scale=attention.scale,
            pad_key=pads[1],
            pad_value=pads[2],
            backend=case.model,
        )

    flops = attention_flops(attention, prod(shape[1:3]))
    return Step(case, forward, []), flops * case.batch_size


_BUILDERS = {'attention': _attention, 'layer': _layer, 'backbone': _backbone}


def default_backend() -> str:
    """The backend that BiFormer takes when none is named."""
    return inspect.signature(BiFormer).parameters['attention_backend'].default
