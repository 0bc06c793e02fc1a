"""What concerns the Triton backend alone. Its results are tested with those of all backends."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from attention_cases import needs_triton

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
        (SimpleNamespace(__version__='3.3.1'), None, r'triton 3\.3\.1 is too old: install torch'),
        (
            ImportError('no such file'),
            None,
            r'triton cannot be imported \(no such file\): install',
        ),
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
    problem = triton_backend.installation_problem.__wrapped__()
    assert problem == message or re.match(message, problem)


@needs_triton
def test_compiles_for_hopper(tmp_path):
    """In a process of its own: here the kernels may be interpreted."""
    env = {**os.environ, 'TRITON_CACHE_DIR': str(tmp_path)}
    env['PYTHONPATH'] = os.pathsep.join(sys.path)
    env.pop('TRITON_INTERPRET', None)
    script = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', COMPILE], env=env, capture_output=True, text=True
    )
    assert script.returncode == 0, script.stderr
    print(script.stdout)
    kernels = [json.loads(line) for line in script.stdout.splitlines()]
    assert len(kernels) == 4 * 7
    assert not any(kernel['spills'] for kernel in kernels)
    for kernel in kernels:
        is_half = kernel['dtype'] == 'torch.bfloat16' and kernel['name'] != 'add_pieces'
        assert bool(kernel['wgmma']) == (is_half and kernel['tokens'] > 128), kernel
        assert bool(kernel['wgmma'] or kernel['mma']) == is_half, kernel
    # Only tiles, heads and padding change a kernel: pictures of other sizes compile nothing.
    assert [kernel['is_new'] for kernel in kernels[4:8]] == [False] * 4


# Layers of BiFormer-S.
COMPILE = """
import json
import torch
from gpu_compile import Launch, compile_launches

half = torch.bfloat16
launches = (
    Launch(200, 336, 16, 1, half),
    Launch(201, 271, 16, 1, half, batch=1),
    Launch(200, 336, 16, 1, half, 'masked'),
    Launch(50, 84, 16, 16, half, num_heads=8),
    Launch(32, 32, 8, 16, half, num_heads=8, batch=4),
    Launch(30, 30, 8, 16, half, num_heads=8, batch=4),
    Launch(100, 168, 16, 4, torch.float32, num_heads=4),
)
for kernel in compile_launches(90, launches):
    launch = kernel.pop('launch')
    print(json.dumps(dict(tokens=launch.tokens, dtype=str(launch.dtype), **kernel)))
"""
