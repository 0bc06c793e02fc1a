"""The library, which a C++ compiler makes for this CPU once."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from mmbiformer.files import whole_or_absent

logger = logging.getLogger('mmbiformer')

FOLDER = Path(__file__).parent
SOURCES = 'routed_attention.cpp', 'depthwise_conv.cpp', 'gelu.cpp'
HEADERS = 'vectors.h', 'products.h'
VARIABLE = 'MMBIFORMER_CPP'
COMPILERS = 'c++', 'g++', 'clang++'
# ``-march=native`` for the widest vectors that there are. Threads are those of PyTorch's OpenMP,
# which is loaded before.
OPTIONS = ('-std=c++17', '-O3', '-march=native', '-fopenmp', '-shared', '-fPIC', '-fno-exceptions')
SECONDS = 120  # it takes ten


class CannotCompile(Exception):
    """Says why in a few words."""


class Library(ctypes.CDLL):
    """Functions of the library.

    Attributes:
        path (Path): Where it lies.
        is_new (bool): Whether it has just been compiled, and so is to be tried first.
    """

    def __init__(self, path: Path, is_new: bool) -> None:
        super().__init__(str(path))
        self.path, self.is_new = path, is_new

    def find_fault(self, find: Callable[[], str | None]) -> str | None:
        """What a check of functions that have just been compiled finds; None where all is right.

        It runs in a thread of its own, where no mode of PyTorch is on: the first use may be
        without gradients, under autocast, or by a compiler whose tensors have no values. Where it
        finds a fault, the next process compiles and tries again.
        """
        if not self.is_new:
            return None
        with ThreadPoolExecutor(1) as threads:
            found = threads.submit(find).result()
        if found is None:
            return None
        self.path.unlink(missing_ok=True)
        return f'what was compiled for this CPU is wrong: {found}'


@cache
def load() -> Library:
    """The library, compiled where that was not done before.

    It is kept in ``~/.cache/mmbiformer`` (or under ``XDG_CACHE_HOME``) for this source, compiler
    and CPU.

    Raises:
        CannotCompile: If there is no compiler, it fails, or ``MMBIFORMER_CPP`` is 0.
    """
    if os.environ.get(VARIABLE) == '0':
        raise CannotCompile(f'{VARIABLE}=0 forbids it')
    compiler = _find_compiler()
    version = _run([compiler, '--version']).partition('\n')[0]
    sources = [(FOLDER / name).read_text(encoding='utf-8') for name in (*SOURCES, *HEADERS)]
    described = repr((sources, compiler, version, OPTIONS, _cpu()))
    name = f'{hashlib.sha256(described.encode()).hexdigest()[:32]}.so'
    caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    try:
        return _load_from(Path(caches, 'mmbiformer/cpp', name), compiler)
    except OSError:  # a folder that cannot be written, or whose programs cannot be run
        with tempfile.TemporaryDirectory() as folder:
            try:
                return _load_from(Path(folder, name), compiler)
            except OSError as error:
                raise CannotCompile(f'what {compiler} made cannot be loaded: {error}') from None


def find_fault(find: Callable[[], str | None]) -> str | None:
    """Why functions of the library cannot be used: there is none, or ``find`` found them wrong."""
    try:
        return load().find_fault(find)
    except CannotCompile as reason:
        return str(reason)


def _load_from(path: Path, compiler: str) -> Library:
    is_new = not path.is_file()
    if is_new:
        logger.info('functions in C++ are compiled for this CPU: seconds, once')
        with whole_or_absent(path) as unfinished:
            sources = [str(FOLDER / name) for name in SOURCES]
            _run([compiler, *OPTIONS, '-o', str(unfinished), *sources])
    return Library(path, is_new)


def _find_compiler() -> str:
    names = [os.environ['CXX']] if os.environ.get('CXX') else COMPILERS
    for name in names:
        if found := shutil.which(name):
            return found
    raise CannotCompile(f'there is no C++ compiler ({", ".join(names)}): install g++, or set CXX')


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f'{command[0]} could not be run: {error}') from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if 'error' in line] or ['nothing']
        raise CannotCompile(f'{command[0]} failed and said: {said[0]}')
    return done.stdout


def _cpu() -> str:
    """What ``-march=native`` looks at: a home folder may be that of many machines."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    names = 'model name', 'flags', 'CPU part', 'Features'
    return '\n'.join(sorted({line for line in lines if line.startswith(names)}))
