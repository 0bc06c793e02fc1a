"""Compiling the Triton kernels for GPUs that are not there, as the backend would launch them.

python tests/helpers/gpu_compile.py 80 86 89 90 100 120

prints what each kernel takes of a multiprocessor, and ends with code 1 where one does not fit.
"""

import argparse
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

from mmbiformer.ops import triton_backend, triton_kernels
from mmbiformer.ops.inputs import Inputs

# Shared memory that one block may have, in KiB, by compute capability (CUDA C++ Programming Guide,
# table "Technical Specifications per Compute Capability").
SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
KERNELS = 'forward', 'backward_query', 'backward_key', 'add_pieces'
PADDINGS = 'none', 'official', 'masked'  # 'none': S divides the map


class Launch(NamedTuple):
    """A layer's attention, whose padding takes part ('official') or not ('masked')."""

    height: int
    width: int
    partition_factor: int
    topk: int
    dtype: torch.dtype
    padding: str = 'official'
    head_dim: int = 32
    num_heads: int = 2
    batch: int = 2

    @property
    def tokens(self) -> int:
        """Tokens of a region."""
        return self.inputs().partition.tokens

    def inputs(self) -> Inputs:
        """Tensors without data."""
        channels, s = self.num_heads * self.head_dim, self.partition_factor
        shape = self.batch, self.height, self.width, 3 * channels
        maps = torch.empty(shape, dtype=self.dtype, device='meta').chunk(3, dim=-1)
        indices = torch.empty(self.batch, s * s, self.topk, dtype=torch.int64, device='meta')
        pads = None, None
        if self.padding == 'official':
            pads = maps[0].new_empty(channels), maps[0].new_empty(channels)
        return Inputs(*maps, indices, *pads, s, self.num_heads, 1.0)


def every_launch() -> Iterator[Launch]:
    """From 1 to 1,024 tokens a region, all widths of heads, dtypes and kinds of padding."""
    regions = (1, 1), (4, 4), (3, 6), (8, 16), (3, 43), (13, 21), (32, 32)
    axes = regions, triton_backend.HEAD_DIMS, triton_backend.DTYPES, PADDINGS
    for (h, w), head_dim, dtype, padding in itertools.product(*axes):
        width = 8 * w - (padding != 'none')
        yield Launch(8 * h, width, 8, 4, dtype, padding, head_dim)


class Driver:
    """Stands in for the driver of a GPU."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # what was compiled for another one is kept apart

    def get_current_stream(self, device: int) -> int:
        return 0


class Recorder:
    """Stands in for a kernel: compiles what would be launched."""

    def __init__(self, name: str, compiled: list) -> None:
        self.name, self.compiled = name, compiled
        self.kernel = getattr(triton_kernels, f'{name}_kernel')

    def __getitem__(self, grid):
        def compile_(*args, **options) -> None:
            compiled = self.kernel.warmup(*args, grid=grid, **options)
            self.compiled.append((self.name, compiled))

        return compile_


def compile_launches(capability: int, launches: Iterable[Launch]) -> Iterator[dict]:
    """Compile forward and backward of each launch.

    Yields:
        dict: Of each kernel of a launch its name, what it was compiled for, whether anything was
        compiled, 'registers', bytes of 'spills' and of 'shared' memory, and the numbers of two
        kinds of instructions.
    """
    triton.runtime.driver.set_active(Driver(capability))
    compiled, seen = [], {}
    kernels = {f'{name}_kernel': getattr(triton_kernels, f'{name}_kernel') for name in KERNELS}
    for name in KERNELS:
        setattr(triton_kernels, f'{name}_kernel', Recorder(name, compiled))
    try:
        for launch in launches:
            inputs = launch.inputs()
            triton_backend.backward(inputs.q, inputs, *triton_backend.forward(inputs))
            for name, kernel in compiled:
                is_new = id(kernel) not in seen
                seen.setdefault(id(kernel), (kernel, _usage(kernel) if is_new else None))
                yield dict(name=name, launch=launch, is_new=is_new, **seen[id(kernel)][1])
            compiled.clear()
    finally:
        for name, kernel in kernels.items():
            setattr(triton_kernels, name, kernel)


def _usage(kernel) -> dict:
    """What a compiled kernel takes, as ptxas says."""
    ptx = kernel.asm['ptx']
    ptxas = get_ptxas(kernel.metadata.target.arch).path
    arch = re.search(r'\.target (\w+)', ptx)[1]
    command = [ptxas, '-v', f'-arch={arch}', '/dev/stdin', '-o', '/dev/null']
    log = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
    return dict(
        registers=int(re.search(r'Used (\d+) registers', log)[1]),
        spills=int(re.search(r'(\d+) bytes spill stores', log)[1]),
        shared=kernel.metadata.shared,
        wgmma=ptx.count('wgmma.mma_async.sync'),
        mma=ptx.count('mma.sync.aligned'),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('capabilities', type=int, nargs='+', choices=SHARED_LIMITS)
    failures = 0
    print(f'triton {triton.__version__}')
    for capability in parser.parse_args().capabilities:
        table = {}
        for kernel in compile_launches(capability, every_launch()):
            launch = kernel['launch']
            key = kernel['name'], launch.head_dim, str(launch.dtype).removeprefix('torch.')
            usage = kernel['registers'], kernel['spills'], kernel['shared']
            table[key] = tuple(map(max, table.get(key, usage), usage))
        for (name, head_dim, dtype), (registers, spills, shared) in table.items():
            fits = shared <= SHARED_LIMITS[capability] << 10 and not (spills and head_dim == 32)
            failures += not fits
            print(
                f'sm_{capability} {name:15} {dtype:9} D = {head_dim:<4} {registers:4} registers '
                f'{spills:4} bytes spilled {shared:6} bytes shared{"" if fits else "  TOO MUCH"}',
                flush=True,
            )
    sys.exit(failures > 0)


if __name__ == '__main__':
    main()
