"""SIGTERM and SIGINT end a program in order: at once, or when it has come to a place to stop.

What is running says which of the two by :func:`hold` and :func:`release`. Needs Python alone.
"""

import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal sends to all processes what their launcher then sends them too, and schedulers do
# likewise: within so many seconds two signals are one.
ONE = 2.0

_state = SimpleNamespace(process=None, number=0, since=0.0, held=False)


class Stopped(SystemExit):
    """A signal ends the program. It is a SystemExit, so that no launcher shows a traceback.

    Attributes:
        number (int): The signal.
        name (str): 'SIGTERM' or 'SIGINT'.
        is_said (bool): Whether the user has been told what became of the run.
    """

    def __init__(self, number: int, is_said: bool = False) -> None:
        super().__init__(128 + number)
        self.number = number
        self.name = signal.Signals(number).name
        self.is_said = is_said


@contextmanager
def listening() -> Iterator[None]:
    """Within the block signals raise :class:`Stopped`, or wait for it; a second one ends at once.

    Within another such block it does nothing, nor beside the main thread, which alone gets them.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if _state.process == os.getpid() or not is_main:
        yield
        return
    former = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    outer = vars(_state).copy()
    vars(_state).update(process=os.getpid(), number=0, held=False)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        vars(_state).update(outer, number=_state.number)


def requested() -> int:
    """The number of the signal that asked this process to stop, the last time that it listened."""
    return _state.number


def hold() -> None:
    """From now on signals wait."""
    _state.held = True


def release() -> None:
    """From now on signals raise :class:`Stopped` at once, and one that waits does so now."""
    if _state.number:
        raise Stopped(_state.number)
    _state.held = False


def forget() -> None:
    """Take back what a signal asked for: the program has come to its end without it."""
    _state.number = 0


def shield_worker(init: Callable[[int], None] | None) -> Callable[[int], None]:
    """A ``worker_init_fn`` of a DataLoader that signals to a whole group leave at work.

    The process that trains needs its workers while it comes to its end, and they are gone when it
    is. SIGINT is ignored, and so is the first SIGTERM, unless the process that trains sends it.
    Where the system does not say who sends a signal (macOS), SIGTERM ends a worker as ever.

    Args:
        init (Callable[[int], None], optional): What the DataLoader had so far.
    """
    return functools.partial(_init_worker, init)


def _init_worker(init: Callable[[int], None] | None, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        # A handler in Python is not told who sent a signal; a thread that waits for it is.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for_term, args=(os.getppid(),), daemon=True).start()
    if init is not None:
        init(worker)


def _wait_for_term(parent: int) -> None:
    """End this process at a SIGTERM from its parent, which ends so what it no longer needs, or at
    the second one from others."""
    for count in itertools.count():
        if signal.sigwaitinfo([signal.SIGTERM]).si_pid == parent:
            os._exit(0)  # else DataLoader calls it a failure, as it also knows
        if count:
            os._exit(128 + signal.SIGTERM)


def _on_signal(number: int, _: object) -> None:
    if _state.process != os.getpid():  # inherited by a fork, which its parent ends
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    now = time.monotonic()
    if not _state.number:
        _state.number, _state.since = number, now
    elif now - _state.since > ONE:
        os.write(2, f'ended at once by a second {signal.Signals(number).name}\n'.encode())
        os._exit(128 + number)
    if not _state.held:
        _state.held = True  # what ends is not disturbed
        raise Stopped(number)
