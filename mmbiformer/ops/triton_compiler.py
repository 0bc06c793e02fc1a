"""What Triton compiles with, as far as the choice of tiles and of kernels depends on it."""

from functools import cache

from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver

from .triton_regions import INTERPRETED

# The first assembler that orders wgmma right. Older ones may write to registers that a running
# wgmma still reads, or write shared memory out of bounds: wrong numbers, and illegal accesses.
# github.com/triton-lang/triton: issues 9433 and 11366, pull request 11781;
# github.com/fla-org/flash-linear-attention: pull request 1262;
# docs.nvidia.com/cuda/archive/13.3.0/cuda-toolkit-release-notes: CUDA tools.
FIRST_SOUND_WGMMA = 13, 3


def wgmma_is_sound() -> bool:
    """Whether the current GPU's wgmma is what it should be; yes where it has none."""
    if INTERPRETED.value:
        return True
    capability = driver.active.get_current_target().arch
    return capability // 10 != 9 or ptxas_version(capability) >= FIRST_SOUND_WGMMA


@cache
def ptxas_version(capability: int) -> tuple[int, int]:
    """Of the assembler that Triton takes for a compute capability, as 90: (13, 3), say."""
    try:
        major, minor = get_ptxas(capability).version.split('.')
    except RuntimeError:  # there is none, which whoever compiles will say
        return 0, 0
    return int(major), int(minor)
