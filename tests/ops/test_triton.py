"""The Triton backend against the float64 reference: in Triton's interpreter where there is no GPU.

Run as a script, this file compiles the kernels for an H100 or H200, which needs no GPU either.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from mmbiformer.ops import routed_attention, routing_indices, triton_backend
from mmbiformer.ops.inputs import Inputs
from mmbiformer.ops.triton_backend import backward, forward

SCALE = 0.3
EPS = torch.finfo(torch.float32).eps
NAMES = ['out', 'q', 'k', 'v', 'pad_key', 'pad_value']
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

needs_triton = pytest.mark.skipif(find_spec('triton') is None, reason='triton is not installed')
each_padding = pytest.mark.parametrize('padding', ['official', 'masked'])

# Batch, height, width, S, topk, heads, head dim.
CASES = {
    'divisible': (1, 8, 4, 2, 2, 2, 16),
    'partial regions': (2, 7, 5, 3, 2, 2, 16),
    'padding regions': (1, 9, 5, 4, 3, 1, 32),
    'one region': (1, 3, 5, 1, 1, 2, 16),
    'one row, top-1': (2, 1, 7, 3, 1, 1, 16),
    'smaller than S x S, all': (1, 2, 3, 5, 25, 1, 16),
    'one token': (1, 1, 1, 3, 1, 1, 64),
    'several tiles, all': (1, 9, 14, 2, 4, 1, 32),
}


def make_inputs(batch, height, width, s, topk, heads, dim, padding, dtype=torch.float32):
    """q, k, v as chunks of one map, and the two pads where padding counts; routing; grad_out."""
    generator = torch.Generator().manual_seed(height * 100 + width)

    def randn(*shape):
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    tensors = list(randn(batch, height, width, 3 * heads * dim).chunk(3, dim=-1))
    if padding == 'official':
        tensors += randn(3 * heads * dim).chunk(3)[1:]
    pads = (torch.zeros_like(tensors[3]), tensors[3]) if padding == 'official' else ()
    indices = routing_indices(*tensors[:2], topk, s, *pads)
    return tensors, indices, randn(batch, height, width, heads * dim)


def run_triton(tensors, indices, grad_out, s, heads):
    """Output and gradients of all tensors."""
    inputs = Inputs(*tensors[:3], indices, *(tensors[3:] or [None, None]), s, heads, SCALE)
    out, lse = forward(inputs)
    grads = backward(grad_out, inputs, out, lse)
    assert all(x.is_contiguous() for x in (out, *grads[:3]))
    return [out, *grads][: 1 + len(tensors)]


def run_reference(tensors, indices, grad_out, s, heads):
    tensors = [x.detach().clone().requires_grad_() for x in tensors]
    pads = dict(zip(('pad_key', 'pad_value'), tensors[3:], strict=False))
    out = routed_attention(
        *tensors[:3],
        indices,
        partition_factor=s,
        num_heads=heads,
        scale=SCALE,
        backend='reference',
        **pads,
    )
    grads = torch.autograd.grad(out, tensors, grad_out, materialize_grads=True, allow_unused=True)
    return [out.detach(), *grads]


def assert_as_exact_as_reference(tensors, indices, grad_out, s, heads):
    """Errors are at most 3 times the plain code's in the same dtype, or 4 eps of float32."""
    results = run_triton(tensors, indices, grad_out, s, heads)
    plain = run_reference(tensors, indices, grad_out, s, heads)
    exact = [x.double() for x in tensors]
    truth = run_reference(exact, indices, grad_out.double(), s, heads)
    for name, result, rounded, true in zip(NAMES, results, plain, truth, strict=False):
        assert result.dtype == tensors[0].dtype
        assert result.shape == true.shape
        error, plain_error = ((x.double() - true).norm().item() for x in (result, rounded))
        # Where the truth is zero, as after a softmax over one key, two equal products cancel.
        is_zero = true.norm() < 1e-12
        floor = 4 * EPS * (grad_out.double() if is_zero else true).norm().item()
        assert error <= max(3 * plain_error, floor), (name, error, plain_error)


@needs_triton
@each_padding
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_output_and_gradients(case, padding):
    inputs = make_inputs(*case, padding)
    assert_as_exact_as_reference(*inputs, case[3], case[5])


@needs_triton
@each_padding
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', ['partial regions', 'several tiles, all', 'one token'])
def test_half_precision(name, dtype, padding):
    case = CASES[name]
    inputs = make_inputs(*case, padding, dtype)
    assert_as_exact_as_reference(*inputs, case[3], case[5])


@needs_triton
@each_padding
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', ['partial regions', 'padding regions', 'smaller than S x S, all'])
def test_weights_nearly_one(name, dtype, padding):
    """What remains of a gradient there is smaller than the output's rounding makes its mean."""
    case = CASES[name]
    tensors, indices, grad_out = make_inputs(*case, padding, dtype)
    tensors[0] *= 10
    assert_as_exact_as_reference(tensors, indices, grad_out, case[3], case[5])


@needs_triton
@each_padding
def test_regions_chosen_by_all_by_some_and_by_none(padding):
    """Lists of regions that are split in pieces of 4, whatever their length and start."""
    tensors, indices, grad_out = make_inputs(3, 7, 8, 4, 1, 1, 16, padding)
    lists = {5: 16}, {1: 5, 2: 6, 6: 5}, {0: 4, 3: 1, 8: 8, 12: 3}
    for image, lengths in enumerate(lists):
        indices[image, :, 0] = torch.tensor(
            [r for r, length in lengths.items() for _ in range(length)]
        )
    assert_as_exact_as_reference(tensors, indices, grad_out, 4, 1)
    grad_value = run_triton(tensors, indices, grad_out, 4, 1)[3]
    assert grad_value[0, 2:4, 2:4].abs().min() > 0
    assert grad_value[0, :2].abs().max() == grad_value[0, 4:].abs().max() == 0


@needs_triton
def test_repeats_bitwise():
    tensors, indices, grad_out = make_inputs(1, 6, 5, 3, 1, 1, 16, 'official', torch.bfloat16)
    indices[:, 1:] = 4
    first = run_triton(tensors, indices, grad_out, 3, 1)
    for x, y in zip(first, run_triton(tensors, indices, grad_out, 3, 1), strict=True):
        assert torch.equal(x, y)


@needs_triton
def test_strides_do_not_matter():
    tensors, indices, grad_out = make_inputs(1, 5, 6, 2, 2, 1, 16, 'official')
    assert not tensors[0].is_contiguous()
    assert triton_backend._map(tensors[0])[0] is tensors[0]
    grad_out = grad_out[:, :1, :1, :1]
    results = run_triton(tensors, indices, grad_out.expand(1, 5, 6, 16), 2, 1)
    channels_first = [x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for x in tensors[:3]]
    apart = [*channels_first, *(x.repeat_interleave(2)[::2] for x in tensors[3:])]
    others = run_triton(apart, indices, grad_out.expand(1, 5, 6, 16).contiguous(), 2, 1)
    for x, y in zip(results, others, strict=True):
        assert torch.equal(x, y)


def test_lists_of_who_routes_where():
    indices = torch.tensor([[[1, 2], [1, 0], [2, 1], [1, 2]], [[3, 3], [0, 1], [3, 1], [0, 3]]])
    queries, starts = triton_backend._invert(indices)
    for image in range(2):
        for region in range(4):
            start, end = starts[image, region : region + 2]
            expected = [i for i in range(4) for j in indices[image, i] if j == region]
            assert queries[image, start:end].tolist() == expected


def test_says_why_it_cannot_run(monkeypatch):
    q = torch.zeros(1, 2, 2, 48)
    assert 'dtype torch.float64 is not float32' in triton_backend.problem(q.double(), 3)
    assert 'head dim 24 is not 16, 32, 64 or 128' in triton_backend.problem(q, 2)
    monkeypatch.setattr(triton_backend, '_interpreted', lambda: True)
    assert triton_backend.problem(q, 3) is None
    monkeypatch.setattr(triton_backend, '_interpreted', lambda: False)
    assert 'q is on cpu: triton needs a CUDA GPU' in triton_backend.problem(q, 3)


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
    found = triton_backend._installation_problem.__wrapped__()
    assert found == message or re.match(message, found)


@needs_triton
def test_compiles_for_hopper(tmp_path):
    env = {**os.environ, 'TRITON_CACHE_DIR': str(tmp_path)}
    env.pop('TRITON_INTERPRET', None)
    script = subprocess.run(
        [sys.executable, '-W', 'ignore', __file__], env=env, capture_output=True, text=True
    )
    assert script.returncode == 0, script.stderr
    print(script.stdout)
    rows = [json.loads(line) for line in script.stdout.splitlines()]
    assert len(rows) == 4 * len(LAUNCHES)
    assert not any(row['spills'] for row in rows)
    for row in rows:
        is_half = row['dtype'] == 'bfloat16' and row['kernel'] != 'add_pieces_kernel'
        assert bool(row['wgmma']) == (is_half and row['tokens'] > 128), row
        assert bool(row['wgmma'] or row['mma']) == is_half, row
    # Only tiles, heads and padding change a kernel: pictures of other sizes compile nothing.
    assert [row['compiled'] for row in rows[4:8]] == [False] * 4


# dtype, batch, height, width, S, topk, heads, padding: layers of BiFormer-S.
LAUNCHES = [
    (torch.bfloat16, 2, 200, 336, 16, 1, 2, 'official'),
    (torch.bfloat16, 1, 201, 271, 16, 1, 2, 'official'),
    (torch.bfloat16, 2, 200, 336, 16, 1, 2, 'masked'),
    (torch.bfloat16, 2, 50, 84, 16, 16, 8, 'official'),
    (torch.bfloat16, 4, 32, 32, 8, 16, 8, 'official'),
    (torch.bfloat16, 4, 30, 30, 8, 16, 8, 'official'),
    (torch.float32, 2, 100, 168, 16, 4, 4, 'official'),
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
        row = dict(kernel=name, dtype=str(dtype)[6:], tokens=tokens, compiled=is_new)
        row.update(count_registers(ptx), shared=compiled.metadata.shared)
        row.update(wgmma=ptx.count('wgmma.mma_async.sync'), mma=ptx.count('mma.sync.aligned'))
        print(json.dumps(row))

    triton.runtime.driver.set_active(Hopper())
    seen = {}
    for name in ('forward', 'backward_query', 'backward_key', 'add_pieces'):
        setattr(triton_kernels, f'{name}_kernel', Recorder(f'{name}_kernel'))
    for dtype, batch, height, width, s, topk, heads, padding in LAUNCHES:
        tokens = -(-height // s) * -(-width // s)
        case = batch, height, width, s, topk, heads, 32
        tensors, indices, grad_out = make_inputs(*case, padding, dtype)
        run_triton(tensors, indices, grad_out, s, heads)


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
