"""Turns, medians, failures, and what autograd keeps."""

import time
import weakref

import pytest
import torch

from mmbiformer.benchmark import measure
from mmbiformer.benchmark.measure import count_saved_bytes, interleave


def test_steps_take_turns(monkeypatch) -> None:
    monkeypatch.setattr(measure, 'MIN_SAMPLE', 0)
    calls, lines = [], []
    steps = {name: lambda name=name: calls.append(name) for name in 'ABC'}
    results = interleave(steps, rounds=3, device='cpu', report=lines.append)
    assert calls[-9:] == list('ABCBCACAB')
    assert calls[:-9] == list('ABC')  # warm-up, thrown away
    assert list(results) == list('ABC')
    assert [len(result) for result in results.values()] == [3, 3, 3]
    assert lines == ['warm-up', 'round 1 of 3', 'round 2 of 3', 'round 3 of 3']


def test_a_sample_is_the_time_of_one_step(monkeypatch) -> None:
    monkeypatch.setattr(measure, 'MIN_SAMPLE', 0.03)
    calls = []

    def step() -> None:
        calls.append(1)
        time.sleep(0.01)

    (timing,) = interleave({'step': step}, rounds=2, device='cpu').values()
    assert 5 <= len(calls) <= 8  # two of warm-up, then two samples of two or three steps
    assert all(0.01 <= sample < 0.02 for sample in timing)


@pytest.mark.parametrize('good_calls', [0, 3], ids=['at once', 'later'])
def test_a_step_that_fails_leaves_the_others_alone(monkeypatch, good_calls) -> None:
    monkeypatch.setattr(measure, 'MIN_SAMPLE', 0)
    calls = []

    def fail() -> None:
        calls.append(1)
        if len(calls) > good_calls:
            raise MemoryError('no room')

    results = interleave({'bad': fail, 'good': lambda: None}, rounds=3, device='cpu')
    assert isinstance(results['bad'], MemoryError)
    assert results['bad'].__traceback__ is None  # its frames would keep the tensors
    assert len(results['good']) == 3
    assert len(calls) == good_calls + 1


def test_saved_bytes_count_a_storage_once() -> None:
    x = torch.rand(1000, requires_grad=True)
    with count_saved_bytes() as saved:
        assert saved() == 0
        loss = x.sin().sum()  # keeps x
        assert saved() == 4000
        loss = loss + x.view(10, 100).cos().sum()  # keeps a view of x
        assert saved() == 4000
        loss = loss + x.exp().sum()  # keeps its result
        assert saved() == 8000
    loss.backward()
    torch.testing.assert_close(x.grad, x.cos() - x.sin() + x.exp())


def test_saved_bytes_leave_parameters_out() -> None:
    layer = torch.nn.Linear(100, 10)
    x = torch.rand(50, 100)
    with count_saved_bytes() as saved:
        layer(x)
        everything = saved()
    with count_saved_bytes(layer.parameters()) as saved:
        layer(x)
        assert saved() == 50 * 100 * 4
    assert everything >= saved()


def test_what_was_counted_is_freed() -> None:
    x = torch.rand(4, 8, requires_grad=True)
    with count_saved_bytes() as saved:
        out = x.softmax(-1)  # keeps its own output
        assert saved() == 4 * 8 * 4
    alive = weakref.ref(out)
    del out
    assert alive() is None
