"""Peak memory of a step over what model and inputs hold before it.

On CUDA it is what PyTorch's allocator handed out. On a CPU it is the growth of the resident set,
in a process of its own per step: an allocator keeps what earlier steps freed, so that a second
step in the same process would seem to need less. What a first step loads (modules, code of
libraries) is none of its memory: a small step goes before, and pages of files are left out.
"""

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch

HOW = {
    'cpu': 'growth of the peak resident set over model and inputs, one step in a fresh process, '
    'pages of files left out',
    'cuda': 'peak of torch.cuda.max_memory_allocated over model and inputs',
}
Spec = TypeVar('Spec')


class MeasureError(RuntimeError):
    """A step that gave no number; its text is the reason."""


class KilledError(MeasureError):
    """A step whose process died: it would take this one along."""


def peak_bytes(
    build: Callable[[Spec], Callable[[], object]], spec: Spec, small: Spec, device: str
) -> int:
    """Peak memory of one step in bytes, gradients of parameters included.

    Args:
        build (Callable): Makes the step from ``spec``; a function of a module, as it runs in
            another process.
        spec (Spec): What to build; can be pickled.
        small (Spec): The same, but small: run before, so that what it loads does not count.
        device (str): 'cpu' or 'cuda'.

    Raises:
        MeasureError: If the step fails, or memory cannot be read on this platform.
        KilledError: If its process dies.
    """
    if device == 'cuda':
        build(small)()
        return _peak_on_cuda(build(spec))
    # A server that has imported everything and computed nothing: each process starts at once.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__, build.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(build, spec, small, sender))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        text = f'its process ended with {process.exitcode}'
        if process.exitcode == -9:
            text += ': killed, most likely out of memory'
        raise KilledError(text) from None
    process.join()
    if isinstance(answer, str):
        raise MeasureError(answer)
    return answer


def _peak_on_cuda(step: Callable[[], object]) -> int:
    step()  # workspaces of libraries, kept from the first call on, depend on the shapes
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - base


def _report_peak(build: Callable, spec: object, small: object, sender: Connection) -> None:
    """Runs in the fresh process: send the peak in bytes, or why there is none."""
    try:
        build(small)()
        step = build(spec)
        release_freed()
        Path('/proc/self/clear_refs').write_text('5')  # forgets the peak so far
        base, files = _resident_bytes('VmRSS'), _resident_bytes('RssFile')
        step()
        files = _resident_bytes('RssFile') - files
        sender.send(_resident_bytes('VmHWM') - base - files)
    except Exception as error:
        sender.send(reason(error))


def release_freed() -> None:
    """Give back what the allocator holds for reuse: a step would take it and seem to need none."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc has it
    if trim:
        trim(0)


def _resident_bytes(field: str) -> int:
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{field}:\s+(\d+) kB', status)[1]) * 1024


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, MeasureError):
        return str(error)
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
