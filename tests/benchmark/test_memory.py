"""The memory of a step is its own: not that of its set-up, of what it loads, of this process."""

import os
import signal
from collections.abc import Callable

import pytest
import torch

from mmbiformer.benchmark.memory import MeasureError, peak_bytes, reason

MB = 1 << 20
SMALL = 1
_LOADED: list[torch.Tensor] = []
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def allocating(spec: tuple[str, int]) -> Callable[[], None]:
    """A step that holds so many MB for a moment; its set-up held three times as much."""
    device, size = spec
    if size == SMALL:
        return _load
    assert device == 'cuda' or _LOADED, 'the small step goes first'
    torch.ones(3 * size * MB, dtype=torch.uint8, device=device)
    # The allocator keeps small blocks that are freed, here below one that stays.
    _LOADED.append([torch.ones(MB // 16, dtype=torch.uint8) for _ in range(16 * size)][-1])

    def step() -> None:
        kept = [torch.ones(MB // 16, dtype=torch.uint8, device=device) for _ in range(16 * size)]
        del kept

    return step


def _load() -> None:
    _LOADED.append(torch.ones(200 * MB, dtype=torch.uint8))


def failing(text: str) -> Callable[[], None]:
    def step() -> None:
        raise ValueError(text)

    return step


def killed(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=needs_gpu)])
def test_peak_of_a_known_allocation(device) -> None:
    here = torch.ones(100 * MB, dtype=torch.uint8)
    # The kernel counts pages in batches per thread: a resident set may lag by some of them.
    assert 63 * MB <= peak_bytes(allocating, (device, 64), (device, SMALL), device) < 70 * MB
    del here


def test_a_step_that_fails_says_why() -> None:
    with pytest.raises(MeasureError, match=r'^ValueError: two lines$'):
        peak_bytes(failing, 'two\nlines', 'two\nlines', 'cpu')


def test_a_step_that_is_killed_says_so() -> None:
    with pytest.raises(MeasureError, match='ended with -9: killed, most likely out of memory'):
        peak_bytes(killed, signal.SIGKILL, signal.SIGKILL, 'cpu')


def test_reason_is_one_line() -> None:
    assert reason(ValueError('a\n  b')) == 'ValueError: a b'
    assert reason(MemoryError()) == 'MemoryError'
    assert reason(MeasureError('x: y')) == 'x: y'
