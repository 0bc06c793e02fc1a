"""What concerns the Triton backend alone. Its results are tested with those of all backends.

Run as a script, this file compiles the kernels for an H100 or H200, which needs no GPU; it needs
``tests/helpers`` in PYTHONPATH.
"""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from attention_cases import Case, make_inputs, needs_triton

from mmbiformer.ops import triton_backend
from mmbiformer.ops.inputs import Inputs


def test_packed_maps_are_read_in_place():
    q = torch.zeros(1, 5, 6, 48)[..., :16]
    assert triton_backend._map(q)[0] is q


def test_lists_of_who_routes_where():
    indices = torch.tensor([[[1, 2], [1, 0], [2, 1], [1, 2]], [[3, 3], [0, 1], [3, 1], [0, 3]]])
    queries, starts = triton_backend._invert(indices)
    for image in range(2):
        for region in range(4):
            start, end = starts[image, region : region + 2]
            expected = [i for i in range(4) for j in indices[image, i] if j == region]
            assert queries[image, start:end].tolist() == expected


def test_says_why_it_cannot_run(monkeypatch):
    def problem(q: torch.Tensor, num_heads: int) -> str | None:
        return triton_backend.problem(Inputs(q, q, q, q, None, None, 1, num_heads, 1.0))

    q = torch.zeros(1, 2, 2, 48)
    assert 'dtype torch.float64 is not float32' in problem(q.double(), 3)
    assert 'head dim 24 is not 16, 32, 64 or 128' in problem(q, 2)
    pooled = Inputs(q, q[:, :1], q[:, :1], q, None, None, 1, 3, 1.0)
    assert 'keys or values are of another size or width' in triton_backend.problem(pooled)
    weighted = Inputs(q, q, q, q, None, None, 1, 3, 1.0, q)
    assert 'it knows no routing weights' in triton_backend.problem(weighted)
    interpreted = 'mmbiformer.ops.triton_regions.INTERPRETED.value'
    monkeypatch.setattr(interpreted, True)
    assert problem(q, 3) is None
    monkeypatch.setattr(interpreted, False)
    assert 'q is on cpu: triton needs a CUDA GPU' in problem(q, 3)


@pytest.mark.parametrize(
    ('module', 'hip', 'message'),
    [
        (SimpleNamespace(__version__='3.6.0+git'), None, None),
        (SimpleNamespace(__version__='3.3.1'), None, r'triton 3\.3\.1 is too old: pip install'),
        (ImportError('no such file'), None, r'triton cannot be imported \(no such file\): pip'),
        (ImportError('no such file'), '6.4', 'it is not tested on AMD GPUs'),
    ],
    ids=['new', 'old', 'absent', 'amd'],
)
def test_says_why_the_installation_cannot_run(monkeypatch, module, hip, message):
    def import_module(_):
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(triton_backend, 'import_module', import_module)
    monkeypatch.setattr(torch.version, 'hip', hip)
    problem = triton_backend._installation_problem.__wrapped__()
    assert problem == message or re.match(message, problem)


@needs_triton
def test_compiles_for_hopper(tmp_path):
    paths = os.pathsep.join(sys.path)
    env = {**os.environ, 'TRITON_CACHE_DIR': str(tmp_path), 'PYTHONPATH': paths}
    env.pop('TRITON_INTERPRET', None)
    script = subprocess.run(
        [sys.executable, '-W', 'ignore', __file__], env=env, capture_output=True, text=True
    )
    assert script.returncode == 0, script.stderr
    print(script.stdout)
    kernels = [json.loads(line) for line in script.stdout.splitlines()]
    assert len(kernels) == 4 * len(LAUNCHES)
    assert not any(kernel['spills'] for kernel in kernels)
    for kernel in kernels:
        is_half = kernel['dtype'] == 'bfloat16' and kernel['name'] != 'add_pieces_kernel'
        assert bool(kernel['wgmma']) == (is_half and kernel['tokens'] > 128), kernel
        assert bool(kernel['wgmma'] or kernel['mma']) == is_half, kernel
    # Only tiles, heads and padding change a kernel: pictures of other sizes compile nothing.
    assert [kernel['compiled'] for kernel in kernels[4:8]] == [False] * 4


# Layers of BiFormer-S.
HALF = dict(head_dim=32, dtype=torch.bfloat16)
LAUNCHES = [
    Case(200, 336, 16, topk=1, num_heads=2, **HALF),
    Case(201, 271, 16, topk=1, num_heads=2, batch=1, **HALF),
    Case(200, 336, 16, topk=1, num_heads=2, padding='masked', **HALF),
    Case(50, 84, 16, topk=16, num_heads=8, **HALF),
    Case(32, 32, 8, topk=16, num_heads=8, batch=4, **HALF),
    Case(30, 30, 8, topk=16, num_heads=8, batch=4, **HALF),
    Case(100, 168, 16, topk=4, num_heads=4, head_dim=32, dtype=torch.float32),
]


def compile_launches() -> None:
    """Compile what the backend would launch, argument by argument, and print what came of it."""
    import triton
    from triton.backends.compiler import GPUTarget

    from mmbiformer.ops import triton_kernels

    class Hopper:
        """Stands in for the driver of a GPU."""

        def get_current_target(self):
            return GPUTarget('cuda', 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    class Recorder:
        """Stands in for a kernel: compiles where the kernel would be launched."""

        def __init__(self, name):
            self.name, self.kernel = name, getattr(triton_kernels, name)

        def __getitem__(self, grid):
            def compile_(*args, **kwargs):
                compiled = self.kernel.warmup(*args, grid=grid, **kwargs)
                report(self.name, compiled)

            return compile_

    def report(name, compiled):
        is_new = id(compiled) not in seen
        seen[id(compiled)] = compiled
        ptx = compiled.asm['ptx']
        s = case.partition_factor
        tokens = -(-case.height // s) * -(-case.width // s)
        kernel = dict(name=name, dtype=str(case.dtype)[6:], tokens=tokens)
        kernel.update(count_registers(ptx), compiled=is_new, shared=compiled.metadata.shared)
        kernel.update(wgmma=ptx.count('wgmma.mma_async.sync'), mma=ptx.count('mma.sync.aligned'))
        print(json.dumps(kernel))

    triton.runtime.driver.set_active(Hopper())
    seen = {}
    for name in ('forward', 'backward_query', 'backward_key', 'add_pieces'):
        setattr(triton_kernels, f'{name}_kernel', Recorder(f'{name}_kernel'))
    for case in LAUNCHES:
        arguments = make_inputs(case, 'triton')
        tensors = {'pad_key': None, 'pad_value': None, **arguments.tensors}
        inputs = Inputs(**tensors, indices=arguments.indices, **arguments.settings)
        triton_backend.backward(arguments.grad_out, inputs, *triton_backend.forward(inputs))


def count_registers(ptx: str) -> dict:
    from triton.backends.nvidia.compiler import get_ptxas

    command = [get_ptxas(90).path, '-v', '-arch=sm_90a', '/dev/stdin', '-o', '/dev/null']
    log = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
    return dict(
        registers=int(re.search(r'Used (\d+) registers', log)[1]),
        spills=int(re.search(r'(\d+) bytes spill stores', log)[1]),
    )


if __name__ == '__main__':
    compile_launches()
