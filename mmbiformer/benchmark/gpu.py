"""What a CUDA GPU alone can be asked: to record a step as a CUDA graph, and what it launches."""

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .memory import MeasureError

WARM_UP = 3  # steps that PyTorch asks for before one is recorded


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step as a CUDA graph; returns what repeats it in one launch.

    Raises:
        MeasureError: Without a GPU.
    """
    if not torch.cuda.is_available():
        raise MeasureError('not run: a CUDA graph needs a CUDA GPU')
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def count_launches(step: Callable[[], None]) -> tuple[int, float]:
    """How many kernels a step runs on the GPU, and for how many seconds in all."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    return len(kernels), sum(event.time_range.elapsed_us() for event in kernels) / 1e6
