"""Compiling the Triton kernels for GPUs that are not there, as the backend would launch them.

python tests/helpers/gpu_compile.py --capabilities 80 90 --head-dims 32

prints what each kernel takes of a multiprocessor, and ends with code 1 where one does not fit:
make gpu-compile, which runs it for all of them with several versions of Triton.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget

from mmbiformer.ops import triton_backend, triton_compiler, triton_kernels
from mmbiformer.ops.inputs import Inputs
from mmbiformer.tables import format_table

# Shared memory that one block may have, in KiB, by compute capability (CUDA C++ Programming Guide,
# table "Technical Specifications per Compute Capability").
SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
TARGET = re.compile(r'\bBRA\b.*`\((\.L_\w+)\)')
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


def every_launch(head_dims: Iterable[int]) -> Iterator[Launch]:
    """From 1 to 1,024 tokens a region, all dtypes and kinds of padding."""
    regions = (1, 1), (4, 4), (3, 6), (8, 16), (3, 43), (13, 21), (32, 32)
    axes = regions, head_dims, triton_backend.DTYPES, PADDINGS
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
        compiled, 'registers', bytes of 'spills' and of 'shared' memory, and the numbers of
        instructions for 'spills_in_loops' and of two kinds of products.
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
    """What a compiled kernel takes, by its machine code."""
    ptx, tools = kernel.asm['ptx'], triton.knobs.nvidia
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        said = _output(tools.cuobjdump.path, '--dump-resource-usage', file.name)
        spills = int(re.search(r' STACK:(\d+)', said)[1])  # nothing else goes there
        code = _output(tools.nvdisasm.path, '--print-code', file.name) if spills else ''
    return dict(
        registers=int(re.search(r' REG:(\d+)', said)[1]),
        spills=spills,
        spills_in_loops=spills_in_loops(code),
        shared=kernel.metadata.shared,
        wgmma=ptx.count('wgmma.mma_async.sync'),
        mma=ptx.count('mma.sync.aligned'),
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def spills_in_loops(code: str) -> int:
    """How many instructions between a label and a branch back to it write or read spills."""
    lines = code.splitlines()
    labels = {x[1]: i for i, line in enumerate(lines) if (x := re.match(r'\s*(\.L_\w+):', line))}
    spilling = [i for i, line in enumerate(lines) if re.search(r'\b(STL|LDL)\b', line)]
    branches = [
        (labels.get(x, i), i) for i, line in enumerate(lines) for x in TARGET.findall(line)
    ]
    return sum(any(start < i < end for start, end in branches) for i in spilling)


def is_right(capability: int, kernel: dict) -> bool:
    """Whether a kernel, as :func:`compile_launches` describes it, may be launched.

    With heads of 32 channels, which BiFormer has, no loop may spill. What ptxas stores before a
    loop and loads after it, for another program to fit a multiprocessor, costs nothing.
    """
    is_sound = triton_compiler.ptxas_version(capability) >= triton_compiler.FIRST_SOUND_WGMMA
    fits = kernel['shared'] <= SHARED_LIMITS[capability] << 10
    spills = kernel['spills_in_loops'] and kernel['launch'].head_dim == 32
    return fits and not spills and (is_sound or not kernel['wgmma'])


def table_of(capability: int, kernels: Iterable[dict]) -> tuple[str, int]:
    """The largest values of kernels of one name, width of numbers and head dim; how many fail."""
    largest, num_wrong = defaultdict(lambda: (0, 0, 0)), 0
    for kernel in kernels:
        bits = 8 * kernel['launch'].dtype.itemsize
        place = f'{kernel["name"]}, {bits} bits', kernel['launch'].head_dim
        usage = kernel['registers'], kernel['spills'], kernel['shared']
        largest[place] = tuple(map(max, largest[place], usage))
        num_wrong += kernel['is_new'] and not is_right(capability, kernel)
    cells = defaultdict(list)
    for (name, _), (registers, spills, shared) in largest.items():
        cells[name].append(f'{registers} / {spills} / {shared / 1024:.1f}')
    head_dims = sorted({head_dim for _, head_dim in largest})
    head = [f'sm_{capability}', *(f'D = {head_dim}' for head_dim in head_dims)]
    return format_table(head, [[name, *row] for name, row in sorted(cells.items())]), num_wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = dict(capabilities=[*SHARED_LIMITS], head_dims=triton_backend.HEAD_DIMS)
    for name, each in choices.items():
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, nargs='+', choices=each, default=each)
    args, num_wrong = parser.parse_args(), 0
    for capability in args.capabilities:
        launches = every_launch(args.head_dims)
        start, kernels = time.monotonic(), [*compile_launches(capability, launches)]
        table, wrong_here = table_of(capability, kernels)
        num_wrong += wrong_here
        ptxas = '{}.{}'.format(*triton_compiler.ptxas_version(capability))
        print(
            f'triton {triton.__version__}, ptxas {ptxas}, sm_{capability}: '
            f'{sum(x["is_new"] for x in kernels)} kernels in {time.monotonic() - start:.0f} s, '
            f'{wrong_here} of them wrong. At most: registers / bytes spilled / KiB shared, of '
            f'{SHARED_LIMITS[capability]}\n{table}',
            flush=True,
        )
    sys.exit(num_wrong > 0)


if __name__ == '__main__':
    main()
