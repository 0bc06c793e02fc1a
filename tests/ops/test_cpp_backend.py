"""Routed attention in C++: what it refuses, and what the tests of all backends do not see."""

import ctypes
from dataclasses import replace

import pytest
import torch
from attention_cases import Case, forward, make_inputs, run

from mmbiformer.cpp.compiler import FOLDER
from mmbiformer.ops import cpp_backend, routed_attention
from mmbiformer.ops.inputs import Inputs

CASE = Case(7, 9, 3, topk=4, head_dim=16, dtype=torch.float32)


def inputs_of(**changes) -> Inputs:
    x = torch.rand(1, 4, 4, 32)
    indices = torch.zeros(1, 4, 1, dtype=torch.int64)
    given = dict(q=x, k=x, v=x, indices=indices, pad_key=None, pad_value=None)
    return Inputs(**{**given, 'partition_factor': 2, 'num_heads': 1, 'scale': 1.0, **changes})


HALVES = dict.fromkeys('qkv', torch.rand(1, 4, 4, 32).half())
PROBLEMS = {
    'dtype': (HALVES, 'dtype torch.float16 is neither torch.float32 nor'),
    'device': (dict.fromkeys('qkv', torch.rand(1, 4, 4, 32).to('meta')), 'for CPUs, not meta'),
    'heads': (dict(num_heads=4), '8 channels of a head are no multiple of 16'),
    'values': (dict(v=torch.rand(1, 4, 4, 24)), '24 channels of a head are no multiple of 16'),
    'weights': (dict(routing_weights=torch.ones(1, 4, 1)), 'it has no routing weights'),
}


@pytest.mark.parametrize(('change', 'said'), PROBLEMS.values(), ids=PROBLEMS)
def test_what_it_does_not_compute(change, said):
    assert said in cpp_backend.problem(inputs_of(**change))


def test_without_a_compiler(anew, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert cpp_backend.problem(inputs_of()).startswith('there is no C++ compiler')
    with pytest.raises(ValueError, match=r"^backend 'cpp' cannot run: there is no C\+\+ compiler"):
        forward(make_inputs(CASE), 'cpp')


def test_what_is_compiled_wrong_is_not_taken(anew):
    anew.change('vectors.h', '.166665211f', '.2f')
    found = r'what was compiled for this CPU is wrong: the output is off by '
    with pytest.raises(ValueError, match=found):
        forward(make_inputs(CASE), 'cpp')
    assert not anew.libraries()


@pytest.mark.parametrize('threads', [2, 5, 16])
def test_threads_make_no_difference_but_rounding(threads):
    """With more of them than heads, a head's regions are shared; with 16, by as many as may."""
    arguments = make_inputs(replace(CASE, num_heads=3))
    expected = run(arguments, 'cpp')
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results, again = run(arguments, 'cpp'), run(arguments, 'cpp')
    finally:
        torch.set_num_threads(before)
    for name, truth in expected.items():
        torch.testing.assert_close(results[name], truth, rtol=1e-5, atol=1e-5)
        assert torch.equal(results[name], again[name])


@pytest.mark.parametrize('wrong', [-1, 9, 1 << 40])
def test_a_region_that_is_not_there_is_an_error(wrong):
    x = torch.rand(1, 6, 6, 32, requires_grad=True)
    indices = torch.zeros(1, 9, 2, dtype=torch.int64)
    indices[0, 4, 1] = wrong
    options = dict(partition_factor=3, num_heads=2, scale=1.0, backend='cpp')
    with pytest.raises(IndexError, match='region numbers from 0 to S'):
        routed_attention(x, x, x, indices, **options)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['q', 'k', 'v'])
def test_what_is_not_finite_stays_so(name, value, dtype):
    """Runs end where a loss is not finite; it must not get lost on the way."""
    arguments = make_inputs(replace(CASE, topk=9, dtype=dtype))
    arguments.tensors[name][0, 3, 3, 5] = value
    out = forward(arguments, 'cpp')
    truth = forward(arguments, 'reference')
    assert torch.equal(out.isfinite(), truth.isfinite())
    assert not out.isfinite().all()


def test_large_logits_are_no_overflow():
    arguments = make_inputs(CASE)
    arguments.tensors['q'] *= 1e4
    out, truth = (forward(arguments, backend) for backend in ('cpp', 'reference'))
    torch.testing.assert_close(out, truth, rtol=1e-4, atol=1e-4)


def test_structures_are_those_of_the_source():
    """Which a compiler compares with these numbers."""
    source = (FOLDER / 'routed_attention.cpp').read_text()
    for structure in (cpp_backend._Problem, cpp_backend._Gradients):
        name = structure.__name__.strip('_')
        assert f'static_assert(sizeof({name}<float>) == {ctypes.sizeof(structure)});' in source
