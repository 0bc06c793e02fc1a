"""Routed attention on small maps: cases, their inputs, and how exact a backend is on them.

Tensors go by their names: 'q', 'k', 'v', where padding takes part 'pad_key' and 'pad_value', and
where routing is weighted 'routing_weights'.
Results are 'out', and under these names their gradients.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from importlib.util import find_spec
from itertools import product

import pytest
import torch
from torch import Tensor

from mmbiformer.ops import routed_attention, routing_indices

SCALE = 0.3
PADDINGS = 'official', 'masked'
HALVES = torch.float16, torch.bfloat16
EPS = torch.finfo(torch.float32).eps
# Triton's kernels run in its interpreter where there is no GPU.
DEVICES = {'triton': 'cuda' if torch.cuda.is_available() else 'cpu'}
# A backend's error may be this many times the plain code's, or this share of the result: the sums
# of C++ and of Triton have another order, which shows where the plain code is exact by chance, and
# with padding, whose tokens are alike and are all rounded alike.
FACTORS = {'chunked': 2, 'cpp': 3, 'triton': 3}
FLOORS = {'chunked': 0, 'cpp': 4 * EPS, 'triton': 4 * EPS}

needs_triton = pytest.mark.skipif(find_spec('triton') is None, reason='triton is not installed')
each_padding = pytest.mark.parametrize('padding', PADDINGS)


@dataclass(frozen=True)
class Case:
    """What inputs are made for. Padding takes part ('official') or not ('masked').

    Keys and values may have a map of their own size, and values heads of their own width; then or
    where routing is weighted, regions are chosen by chance.
    """

    height: int
    width: int
    partition_factor: int
    _: KW_ONLY
    topk: int
    batch: int = 2
    num_heads: int = 2
    head_dim: int = 4
    padding: str = 'official'
    dtype: torch.dtype = torch.float64
    key_size: tuple[int, int] | None = None
    value_dim: int | None = None
    is_weighted: bool = False


@dataclass
class Arguments:
    """What the op is called with, and the gradient of its output."""

    tensors: dict[str, Tensor]
    indices: Tensor
    grad_out: Tensor
    settings: dict


def each_case(*groups: tuple, paddings: Sequence[str] = PADDINGS) -> pytest.MarkDecorator:
    """Parametrise a test by (backend, case), given groups of (backend, {name: case}, dtypes)."""
    return pytest.mark.parametrize(
        ('backend', 'case'),
        [
            pytest.param(
                backend,
                replace(case, dtype=dtype, padding=padding),
                id=f'{backend}-{str(dtype).removeprefix("torch.")}-{name}-{padding}',
                marks=needs_triton if backend == 'triton' else (),
            )
            for backend, cases, dtypes in groups
            for (name, case), dtype, padding in product(cases.items(), dtypes, paddings)
        ],
    )


def make_inputs(case: Case, backend: str = 'reference') -> Arguments:
    """Random inputs where a backend takes them; q, k and v are parts of one map, as in a layer."""
    generator = torch.Generator().manual_seed(case.height * 100 + case.width)

    def randn(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return x.to(DEVICES.get(backend, 'cpu'), case.dtype)

    channels, s = case.num_heads * case.head_dim, case.partition_factor
    size = case.batch, case.height, case.width
    value_channels = case.num_heads * (case.value_dim or case.head_dim)
    key_size = case.batch, *(case.key_size or size[1:])
    if key_size == size and value_channels == channels:
        tensors = dict(zip('qkv', randn(*size, 3 * channels).chunk(3, dim=-1), strict=True))
    else:
        maps = (*size, channels), (*key_size, channels), (*key_size, value_channels)
        tensors = {name: randn(*shape) for name, shape in zip('qkv', maps, strict=True)}
    pads = ()
    if case.padding == 'official':
        tensors.update(pad_key=randn(channels), pad_value=randn(value_channels))
        pads = torch.zeros_like(tensors['pad_key']), tensors['pad_key']
    if case.key_size or case.is_weighted:
        scores = randn(case.batch, s * s, s * s)
        scores[..., 0] = float('inf')  # the first region has real keys whatever the size
        indices = scores.topk(case.topk).indices
    else:
        indices = routing_indices(tensors['q'], tensors['k'], case.topk, s, *pads)
    if case.is_weighted:
        tensors['routing_weights'] = randn(*indices.shape)
    settings = dict(partition_factor=s, num_heads=case.num_heads, scale=SCALE)
    return Arguments(tensors, indices, randn(*size, value_channels), settings)


def forward(arguments: Arguments, backend: str) -> Tensor:
    """The output alone."""
    return routed_attention(
        **arguments.tensors, indices=arguments.indices, **arguments.settings, backend=backend
    )


def run(arguments: Arguments, backend: str) -> dict[str, Tensor]:
    """The output, and the gradients of all tensors."""
    leaves = {name: x.detach().requires_grad_() for name, x in arguments.tensors.items()}
    out = forward(replace(arguments, tensors=leaves), backend)
    grads = torch.autograd.grad(
        out, list(leaves.values()), arguments.grad_out, allow_unused=True, materialize_grads=True
    )
    return dict(out=out.detach(), **dict(zip(leaves, grads, strict=True)))


def assert_as_exact_as_reference(arguments: Arguments, backend: str) -> dict[str, Tensor]:
    """Run a backend, hold its results to those of the plain code, and return them.

    In float64 they agree to 1e-12. In other dtypes their errors, which the plain code in float64
    tells, are at most a few times those that the plain code makes in the same dtype.
    """
    results, plain = run(arguments, backend), run(arguments, 'reference')
    exact = {name: x.double() for name, x in arguments.tensors.items()}
    grad_out = arguments.grad_out.double()
    truth = run(replace(arguments, tensors=exact, grad_out=grad_out), 'reference')
    for name, true in truth.items():
        result = results[name]
        assert result.is_contiguous()
        assert result.dtype == arguments.grad_out.dtype
        assert result.shape == true.shape
        if result.dtype == torch.float64:
            torch.testing.assert_close(result, true, rtol=0, atol=1e-12)
            continue
        error, plain_error = ((x.double() - true).norm().item() for x in (result, plain[name]))
        # Where the truth is zero, as after a softmax over one key, two equal products cancel.
        magnitude = (grad_out if true.norm() < 1e-12 else true).norm().item()
        # In 16 bits C++ rounds no more than what it returns.
        factor = 2 if backend == 'cpp' and result.dtype == torch.bfloat16 else FACTORS[backend]
        bound = max(factor * plain_error, FLOORS[backend] * magnitude)
        assert bound > 0, f'{name}: the plain code makes no error to measure by'
        assert error <= bound, (name, error, plain_error)
    return results
