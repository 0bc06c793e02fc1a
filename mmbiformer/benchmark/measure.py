"""Honest timing: candidates take turns, and all samples are kept."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor

from .device import synchronize

MIN_SAMPLE = 0.02  # seconds: shorter steps are repeated within a sample


def interleave(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float] | Exception]:
    """Time steps in turns, A B C B C A, so that a slow spell of the machine hits all alike.

    Each round begins with the next step: what one leaves to another, such as memory given back,
    is not always the same one's.

    Args:
        steps (Mapping[str, Callable]): What to run, by name.
        rounds (int): Samples per step, after one round of warm-up that is thrown away.
        device (str): 'cpu' or 'cuda'; it is waited for before and after each sample.
        report (Callable): Is told one line per round.

    Returns:
        dict[str, list[float] | Exception]: In the order of ``steps``: seconds per step, one value
        per round, or what the step raised, without the frames that hold its tensors.
    """
    results: dict[str, list[float] | Exception] = {}
    calls = {}
    report('warm-up')
    for name, step in steps.items():
        results[name] = []
        try:
            seconds = _seconds(step, 1, device)  # allocates, builds kernels
            if seconds < MIN_SAMPLE:
                seconds = _seconds(step, 1, device)
            calls[name] = max(1, ceil(MIN_SAMPLE / seconds))
        except Exception as error:  # whatever goes wrong is that row's result
            results[name] = error.with_traceback(None)
    for number in range(1, rounds + 1):
        report(f'round {number} of {rounds}')
        turns = list(calls.items())
        begin = (number - 1) % max(1, len(turns))
        for name, count in turns[begin:] + turns[:begin]:
            try:
                results[name].append(_seconds(steps[name], count, device))
            except Exception as error:
                results[name] = error.with_traceback(None)
                del calls[name]
    return results


def _seconds(step: Callable[[], object], calls: int, device: str) -> float:
    """Seconds per call, over ``calls`` calls in a row."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / calls


@contextmanager
def count_saved_bytes(ignored: Iterator[Tensor] = ()) -> Iterator[Callable[[], int]]:
    """Count what autograd keeps for the backward pass: bytes of distinct storages.

    Views of one storage count once. Yields a function that returns the number so far.

    Args:
        ignored (Iterator[Tensor]): Tensors that would be there anyway, such as parameters.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a node that kept its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(saved.values())
