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
    many = q.expand(21846, 2, 2, 48)
    assert 'a batch of 21846 times 3 heads is more than 65,535' in problem(many, 3)
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


@pytest.mark.parametrize(
    ('torch_version', 'cuda', 'triton', 'remedy'),
    [
        ('2.9.1', '12.8', '3.5.1', 'install torch 2.10 or newer, which brings its own'),
        ('2.13.0+cu130', '13.0', '3.5.1', 'install torch 2.13.0+cu130 again, which brings its'),
        ('2.13.0+cu130', '13.0', None, 'install torch 2.13.0+cu130 again, which brings its'),
        ('2.13.0+cpu', None, None, 'install torch with CUDA, which brings it'),
    ],
    ids=['old', 'old beside new torch', 'broken', 'cpu'],
)
def test_names_the_torch_to_install(monkeypatch, torch_version, cuda, triton, remedy):
    def import_module(_):
        if triton is None:
            raise AttributeError('no such name')
        return SimpleNamespace(__version__=triton)

    monkeypatch.setattr(triton_backend, 'import_module', import_module)
    monkeypatch.setattr(torch, '__version__', torch_version)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    assert remedy in triton_backend.installation_problem.__wrapped__()


@pytest.mark.parametrize(
    ('requires', 'message'),
    [
        (['filelock', 'triton==3.7.1; platform_system == "Linux"'], 'is not the 3.7.1 that torch'),
        (['filelock', 'triton==3.9.0; platform_system == "Linux"'], None),
        (['filelock'], None),
        (None, None),
    ],
    ids=['another', 'its own', 'none', 'unknown'],
)
def test_says_that_triton_is_not_the_one_of_torch(monkeypatch, requires, message):
    module = SimpleNamespace(__version__='3.9.0')
    monkeypatch.setattr(triton_backend, 'import_module', lambda _: module)
    monkeypatch.setattr(triton_backend.metadata, 'requires', lambda _: requires)
    found = triton_backend.misfit()
    assert found is None if message is None else message in found


@needs_triton
@pytest.mark.parametrize(
    ('capability', 'ptxas', 'is_sound'),
    [
        (90, '12.8', False),
        (90, '13.1', False),
        (90, '13.3', True),
        (80, '12.8', True),
        (100, '12.9', True),
        (90, None, False),
    ],
)
def test_wgmma_is_sound_from_some_compiler_on(monkeypatch, capability, ptxas, is_sound):
    from mmbiformer.ops import triton_compiler

    def get_ptxas(_):
        if ptxas is None:
            raise RuntimeError('Cannot find ptxas')
        return SimpleNamespace(version=ptxas)

    target = SimpleNamespace(arch=capability)
    driver = SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: target))
    version = triton_compiler.ptxas_version.__wrapped__
    monkeypatch.setattr(triton_compiler, 'driver', driver)
    monkeypatch.setattr(triton_compiler, 'get_ptxas', get_ptxas)
    monkeypatch.setattr(triton_compiler, 'ptxas_version', version)
    monkeypatch.setattr('mmbiformer.ops.triton_regions.INTERPRETED.value', False)
    assert triton_compiler.wgmma_is_sound() == is_sound


@needs_triton
def test_finds_spills_in_loops():
    from gpu_compile import spills_in_loops

    before, loop, after = (
        '\nSTL [R1], R0 ;',
        '\n.L_x_0:\n{}\n@P0 BRA `(.L_x_0) ;',
        '\nLDL.LU R0, [R1] ;',
    )
    assert spills_in_loops(before + loop.format('FADD R2, R2, R3 ;') + after) == 0
    assert spills_in_loops(before + loop.format('LDL R2, [R1+0x4] ;') + after) == 1
    assert spills_in_loops('BRA `(.L_x_1) ;' + after + '\n.L_x_1:') == 0


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
    assert len(kernels) == 4 * (7 + 2)
    assert not any(kernel['spills_in_loops'] for kernel in kernels)
    for kernel in kernels:
        is_half = kernel['dtype'] == 'torch.bfloat16' and kernel['name'] != 'add_pieces'
        takes_wgmma = is_half and kernel['tokens'] > 128 and kernel['is_sound']
        assert bool(kernel['wgmma']) == takes_wgmma, kernel
        assert bool(kernel['wgmma'] or kernel['mma']) == is_half, kernel
    # Only tiles, heads and padding change a kernel: pictures of other sizes compile nothing.
    assert [kernel['is_new'] for kernel in kernels[4:8]] == [False] * 4


# Layers of BiFormer-S, for compilers with which wgmma is as it should be, and for others.
COMPILE = """
import json
import torch
from gpu_compile import Launch, compile_launches
from mmbiformer.ops import triton_compiler

half = torch.bfloat16
large = Launch(200, 336, 16, 1, half), Launch(200, 336, 16, 1, half, 'masked')
launches = (
    large[0],
    Launch(201, 271, 16, 1, half, batch=1),
    large[1],
    Launch(50, 84, 16, 16, half, num_heads=8),
    Launch(32, 32, 8, 16, half, num_heads=8, batch=4),
    Launch(30, 30, 8, 16, half, num_heads=8, batch=4),
    Launch(100, 168, 16, 4, torch.float32, num_heads=4),
)
for is_sound, chosen in ((True, launches), (False, large)):
    oldest = triton_compiler.ptxas_version(90)
    triton_compiler.FIRST_SOUND_WGMMA = oldest if is_sound else (oldest[0] + 1, 0)
    for kernel in compile_launches(90, chosen):
        launch = kernel.pop('launch')
        kernel.update(tokens=launch.tokens, dtype=str(launch.dtype), is_sound=is_sound)
        print(json.dumps(kernel))
"""
