"""Which partition factor S suits an input size: padding and cost of the candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from mmbiformer.ops.regions import Partition
from mmbiformer.tables import format_table

from .cases import (
    SHIPPED_FACTORS,
    SHIPPED_TASKS,
    Size,
    map_size,
    scaled_factor,
    size_name,
    smallest_factor,
)
from .cost import routed_flops, routing_flops
from .families import FAMILY_OF, arch_title
from .report import milliseconds, three_digits

MAX_WASTE = 1.1  # padded tokens per real token, in the worst stage
SPREAD = 1.5  # candidates lie within this factor of the paper's rule
RULE = (
    f'recommended: the least attention cost, pads computed, of the S that pad no stage beyond '
    f'x{MAX_WASTE} (where none does: the S that pads least)'
)


@dataclass(frozen=True)
class StageAdvice:
    """What an S means for one routed stage.

    Attributes:
        region (tuple): Height and width of a region in tokens.
        waste (float): Padded tokens per real token, 1 where nothing is padded.
        empty_regions (int): Regions that hold padding alone.
        keys (int): Keys that a query attends to.
        needed_flops (float): Attention and routing of all blocks, real tokens.
        padded_flops (float): The same when padding is computed.
    """

    region: tuple[int, int]
    waste: float
    empty_regions: int
    keys: int
    needed_flops: float
    padded_flops: float


@dataclass(frozen=True)
class FactorAdvice:
    """What an S means for all routed stages."""

    partition_factor: int
    stages: tuple[StageAdvice, ...]

    @property
    def waste(self) -> float:
        """Padded tokens per real token in the worst stage."""
        return max(stage.waste for stage in self.stages)

    @property
    def needed_flops(self) -> float:
        return sum(stage.needed_flops for stage in self.stages)

    @property
    def padded_flops(self) -> float:
        return sum(stage.padded_flops for stage in self.stages)


def stage_advice(
    map_size: Size, dim: int, depth: int, topk: int, partition_factor: int
) -> StageAdvice:
    """Padding and cost of one stage's map under S."""
    s, cut = partition_factor, Partition(1, *map_size, partition_factor)
    tokens, padded = prod(map_size), s * s * cut.tokens
    routing = routing_flops(dim, s)
    return StageAdvice(
        region=cut.region,
        waste=padded / tokens,
        empty_regions=s * s - prod(cut.real_shape),
        keys=topk * cut.tokens,
        needed_flops=depth * (routed_flops(tokens, dim, topk, s) + routing),
        padded_flops=depth * (routed_flops(padded, dim, topk, s) + routing),
    )


def factor_advice(arch: str, size: Size, partition_factor: int) -> FactorAdvice:
    """Padding and cost of all routed stages of an architecture at an image size."""
    stages = [
        stage_advice(map_size(size, i), dim, depth, topk, partition_factor)
        for i, (dim, depth, topk) in enumerate(FAMILY_OF[arch].layout(arch))
        if topk is not None
    ]
    return FactorAdvice(partition_factor, tuple(stages))


def candidates(arch: str, size: Size) -> range:
    """Every S around the paper's rule that has enough regions for the largest top-k."""
    middle = scaled_factor(arch, size)
    return range(max(smallest_factor(arch), ceil(middle / SPREAD)), int(middle * SPREAD) + 1)


def recommend(advices: Sequence[FactorAdvice]) -> int:
    """The S that :data:`RULE` picks."""
    modest = [advice for advice in advices if advice.waste <= MAX_WASTE]
    if not modest:
        return min(advices, key=lambda advice: advice.waste).partition_factor
    return min(modest, key=lambda advice: advice.padded_flops).partition_factor


def format_advice(
    arch: str, size: Size, advices: Sequence[FactorAdvice], times: dict[int, float | None]
) -> str:
    """The candidates for S at a size, the recommended one marked.

    Args:
        times (dict): Median seconds of the backbone per S; empty where nothing was timed.
    """
    best = recommend(advices)
    rows = []
    for advice in advices:
        s, stages = advice.partition_factor, advice.stages
        row = {'S': f'{s} *' if s == best else str(s)}
        row |= {f'region {i}': size_name(x.region) for i, x in enumerate(stages, 1)}
        row |= {f'padded {i}': f'x{x.waste:.2f}' for i, x in enumerate(stages, 1)}
        row['all-pad regions'] = '/'.join(str(x.empty_regions) for x in stages)
        row['keys per query'] = '/'.join(str(x.keys) for x in stages)
        row['GFLOP needed'] = three_digits(advice.needed_flops / 1e9)
        row['pads computed'] = three_digits(advice.padded_flops / 1e9)
        if times:
            row['backbone ms'] = milliseconds(times[s])
        rows.append(row)
    table = format_table(list(rows[0]), [list(row.values()) for row in rows])
    shipped = ', '.join(
        f'S={s} for {SHIPPED_TASKS[s]} at {size_name(known)}'
        for known, s in SHIPPED_FACTORS.items()
    )
    here = f'; at this size S={SHIPPED_FACTORS[size]}' if size in SHIPPED_FACTORS else ''
    return (
        f'S for {arch_title(arch)} at {size_name(size)}; attention of the routed stages\n'
        f'{table}\n'
        f'* {RULE}\n'
        f'paper and shipped configs: {shipped}{here}. '
        'Fewer keys per query are cheaper and see less: train with the S that is used.'
    )
