"""The Triton kernels where regions are large, all choose one, or programs are many.

Regions of more than 128 tokens have tiles of their own. Errors are held to float64 dense attention
over the gathered regions, as those of smaller regions are.
"""

import pytest
import torch
from attention_cases import (
    HALVES,
    Case,
    assert_as_exact_as_reference,
    each_case,
    make_inputs,
    needs_triton,
    run,
)

from mmbiformer.ops import triton_backend, triton_compiler

# By tokens of a region. Those of 256 fill all tiles; all others leave the last one partly empty.
ONE = dict(topk=1, batch=1, num_heads=1, head_dim=32)
WHOLE = {'256': Case(32, 32, 2, **ONE)}
PARTIAL = {
    '129': Case(5, 85, 2, **ONE),
    '273': Case(25, 41, 2, **ONE),
    '300': Case(29, 39, 2, **ONE),
    '144, all': Case(23, 23, 2, **{**ONE, 'topk': 4}),
}


def some(*names: str) -> dict[str, Case]:
    return {name: PARTIAL[name] for name in names}


@each_case(
    ('triton', some('129'), [torch.float32]),
    ('triton', some('273', '144, all'), [torch.bfloat16]),
    ('triton', some('300'), [torch.float16]),
)
def test_partial_regions(backend, case):
    assert_as_exact_as_reference(make_inputs(case, backend), backend)


@each_case(('triton', WHOLE, HALVES), paddings=['masked'])
def test_whole_regions(backend, case):
    assert_as_exact_as_reference(make_inputs(case, backend), backend)


@each_case(('triton', some('129'), [torch.bfloat16]))
def test_tiles_without_wgmma(backend, case, monkeypatch):
    monkeypatch.setattr(triton_compiler, 'wgmma_is_sound', lambda: False)
    arguments = make_inputs(case, backend)
    table = triton_backend.tiles_by_tokens(torch.bfloat16)
    assert table[float('inf')] == triton_backend.TILES_WITHOUT_WGMMA
    assert_as_exact_as_reference(arguments, backend)


SKEWED = {'129': Case(8, 128, 3, **ONE)}


@each_case(('triton', SKEWED, [torch.float16]))
def test_all_choose_one_region(backend, case):
    """Its list of nine queries is cut into three pieces, which end within tiles."""
    arguments = make_inputs(case, backend)
    arguments.indices[:] = 4
    results = assert_as_exact_as_reference(arguments, backend)
    chosen = torch.zeros_like(results['v'], dtype=torch.bool)
    chosen[:, 3:6, 43:86] = True
    assert results['v'][chosen].count_nonzero() > 0
    assert results['v'][~chosen].count_nonzero() == 0


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason='all programs of a GPU run')
def test_more_than_4096_heads_of_images(monkeypatch):
    """Only the last programs run, as the interpreter takes its time."""
    from triton.runtime.interpreter import interpreter_builder as builder

    case = Case(2, 3, 2, topk=2, batch=515, num_heads=8, head_dim=16, dtype=torch.float32)
    few, launch_grid = 4, triton_backend._launch_grid
    set_size, set_place, sizes = builder.set_grid_dim, builder.set_grid_idx, []

    def few_programs(*args) -> tuple[int, int, int]:
        sizes[:] = launch_grid(*args)
        return *sizes[:2], few

    monkeypatch.setattr(triton_backend, '_launch_grid', few_programs)
    monkeypatch.setattr(builder, 'set_grid_dim', lambda *_: set_size(*sizes))
    monkeypatch.setattr(
        builder, 'set_grid_idx', lambda x, y, z: set_place(x, y, z + sizes[2] - few)
    )
    arguments = make_inputs(case, 'triton')
    results, truth = run(arguments, 'triton'), run(arguments, 'reference')
    channels = slice(-few * case.head_dim, None)
    for name in 'out', 'q', 'k', 'v':
        result, true = (x[name][-1, ..., channels] for x in (results, truth))
        torch.testing.assert_close(result, true, rtol=1e-5, atol=1e-5)
