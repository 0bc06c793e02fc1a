"""The least time that routed attention takes on a GPU, worked out from what the GPU can do.

No kernel can be faster than what limits it most: its products, its exponentials, what it reads of
the GPU's cache, or what it reads and writes of its memory. What a real kernel takes is more.
"""

from typing import NamedTuple

from mmbiformer.backbones.slots import HEAD_DIM
from mmbiformer.ops.regions import Partition

from .cases import Size, map_size
from .families import FAMILY_OF

BYTES = 2  # of a value in bfloat16


class Amounts(NamedTuple):
    """Of work: what an attention has to do at least, or what a GPU does in a second.

    Attributes:
        operations (float): Of products in bfloat16; a multiply-add is two.
        exponentials (float): In float32.
        cached_bytes (float): Read of the cache that all multiprocessors share.
        bytes (float): Read or written of memory.
    """

    operations: float
    exponentials: float
    cached_bytes: float
    bytes: float


# Products and memory of an H200 as measured by others on large matrices and maps; exponentials
# follow from its special function units, and the cache's rate is assumed. An H100 has the same
# multiprocessors, and memory of 3.35 TB/s where an H200 has 4.8 (NVIDIA's data sheets).
GPUS = {
    'H100': Amounts(790e12, 3.7e12, 5.5e12, 4.3e12 * 3.35 / 4.8),
    'H200': Amounts(790e12, 3.7e12, 5.5e12, 4.3e12),
}


def attention_work(
    dim: int, num_heads: int, topk: int, size: Size, partition_factor: int, batch: int
) -> tuple[Amounts, Amounts]:
    """What one routed attention on maps of a size needs, forward and backward.

    All S x S regions are taken for full. The backward pass computes the scores twice, for the
    gradients of queries and of keys.
    """
    cut = Partition(batch, *size, partition_factor)
    tokens, keys = batch * size[0] * size[1], topk * cut.tokens
    scores = tokens * keys * num_heads
    product = 2 * scores * dim / num_heads
    gathered = 2 * BYTES * dim * keys * batch * partition_factor**2
    a_map = BYTES * dim * tokens
    forward = Amounts(2 * product, scores, gathered, 4 * a_map)
    return forward, Amounts(7 * product, 2 * scores, 2 * gathered, 8 * a_map)


def least_seconds(work: Amounts, rates: Amounts) -> float:
    """Time of what limits it most."""
    return max(amount / rate for amount, rate in zip(work, rates, strict=True))


def stage_floors(
    arch: str, stage: int, size: Size, partition_factor: int, batch: int, gpu: str
) -> tuple[float, float]:
    """Seconds of one routed attention of a stage at an image size, forward and backward."""
    dim, _, topk = FAMILY_OF[arch].layout(arch)[stage]
    num_heads = dim // HEAD_DIM
    works = attention_work(dim, num_heads, topk, map_size(size, stage), partition_factor, batch)
    forward, backward = (least_seconds(work, GPUS[gpu]) for work in works)
    return forward, backward


def backbone_floors(
    arch: str, size: Size, partition_factor: int, batch: int, gpu: str
) -> tuple[float, float]:
    """Seconds of all routed attentions of a backbone, forward and backward."""
    totals = [0.0, 0.0]
    for stage, (_, depth, topk) in enumerate(FAMILY_OF[arch].layout(arch)):
        if topk is not None:
            floors = stage_floors(arch, stage, size, partition_factor, batch, gpu)
            totals = [total + depth * floor for total, floor in zip(totals, floors, strict=True)]
    return totals[0], totals[1]
