"""Recording and counting on a GPU, with a stand-in for what CUDA alone has."""

from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from text_tables import tables_of
from torch.autograd import DeviceType

from mmbiformer.benchmark import gpu, groups
from mmbiformer.benchmark.cases import Case
from mmbiformer.benchmark.groups import measure_group
from mmbiformer.benchmark.report import format_group
from mmbiformer.benchmark.steps import build_step


def case(**ways) -> Case:
    return Case(*('backbone', 'reference', 'training', 't', (32, 32), 4, 1, 'cpu', 'fp32'), **ways)


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA that records which step ran while it was capturing, and counts replays."""
    found = SimpleNamespace(captured=[], replays=0, is_capturing=False)

    class Graph:
        def replay(self) -> None:
            found.replays += 1

    @contextmanager
    def capture(graph):
        found.is_capturing = True
        yield
        found.is_capturing = False

    for name, value in dict(
        is_available=lambda: True,
        Stream=MagicMock(),
        stream=MagicMock(),
        current_stream=MagicMock(),
        CUDAGraph=Graph,
        graph=capture,
        synchronize=lambda: None,
    ).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return found


def test_a_graph_is_recorded_after_warm_up_and_repeated(cuda):
    step = build_step(case(graph=True))
    inner = step.forward
    step.forward = lambda: cuda.captured.append(cuda.is_capturing) or inner()
    step()
    assert cuda.captured == [False] * gpu.WARM_UP + [True]
    assert cuda.replays == 1
    step()
    assert len(cuda.captured) == gpu.WARM_UP + 1
    assert cuda.replays == 2


def test_without_a_gpu_a_graph_is_named_as_not_run():
    rows = measure_group([case(), case(graph=True)], 1, lambda line: None)
    assert [len(row.samples) for row in rows] == [1, 0]
    assert rows[1].problems == ['not run: a CUDA graph needs a CUDA GPU']
    text = format_group(rows, 100.0)
    assert 'reference, CUDA graph: n/a: not run: a CUDA graph needs a CUDA GPU' in text
    assert 'launches' not in text


def test_kernels_are_counted(cuda, monkeypatch):
    def event(device, microseconds):
        time_range = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(device_type=device, time_range=time_range)

    events = [event(DeviceType.CPU, 70), event(DeviceType.CUDA, 20), event(DeviceType.CUDA, 5)]
    profiler = MagicMock()
    profiler.return_value.__enter__.return_value.events.return_value = events
    monkeypatch.setattr(gpu, 'profile', profiler)
    steps = []
    launches, busy = gpu.count_launches(lambda: steps.append(1))
    assert steps == [1]
    assert launches == 2
    assert busy == pytest.approx(25e-6)


def test_launches_stand_beside_times(cuda, monkeypatch):
    cpu = case()
    row = groups.Row(
        case=Case(**{**vars(cpu), 'device': 'cuda'}), samples=[0.004], flops=1e9, launches=812,
        busy_seconds=0.001, saved_bytes=0, peak_bytes=0,
    )  # fmt: skip
    failed = groups.Row(case=row.case, problems=['no room'])
    ((head, values, missing),) = tables_of(format_group([row, failed], 100.0))
    assert values[head.index('launches')] == '812'
    assert values[head.index('GPU idle')] == '75%'
    assert missing[1] == 'n/a'


def test_compiled_blocks_are_a_way_to_run_a_row(monkeypatch):
    calls = []
    monkeypatch.setattr(
        'mmbiformer.backbones.base.StagedBackbone.compile_blocks', lambda self: calls.append(self)
    )
    step = build_step(case(compiled=True))
    assert calls == [step.module]
    assert step.case.row == 'reference, compiled'
