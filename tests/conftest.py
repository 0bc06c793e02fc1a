"""Settings shared by all tests."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import utils as config_utils
from yapf.yapflib import yapf_api

# Triton's kernels run in its interpreter where there is no GPU; read when Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


def remember(function: Callable) -> Callable:
    """The function, which computes each result once a process."""
    results = {}

    def remembering(*args, **options):
        key = repr((args, options))
        if key not in results:
            results[key] = function(*args, **options)
        return results[key]

    return remembering


# Half of the time of a run of few steps goes here: mmengine formats the config of a run five
# times, and reads all metafiles of a package for each config that it takes from there.
yapf_api.FormatCode = remember(yapf_api.FormatCode)
config_utils._get_cfg_metainfo = remember(config_utils._get_cfg_metainfo)


def patch_once(patch_lang: Callable) -> Callable:
    """Triton's interpreter replaces the words of its language at each call of a function by a
    kernel, and puts them back after a launch. Once for the functions of a module is enough, where
    nothing is compiled; half of a kernel's time goes there."""
    modules = {}

    def patch(fn: Callable) -> SimpleNamespace:
        if fn.__module__ not in modules:
            modules[fn.__module__] = patch_lang(fn)
        return SimpleNamespace(restore=lambda: None)

    return patch


if os.environ.get('TRITON_INTERPRET') == '1' and find_spec('triton'):
    from triton.runtime import interpreter

    interpreter._patch_lang = patch_once(interpreter._patch_lang)


def pytest_configure(config) -> None:
    # Two workers on two cores: more threads would only get in each other's way.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def end_what_loads_data() -> Iterator[None]:
    """A run that is broken off leaves processes that load its data to the garbage collector, where
    DataLoader waits five seconds for each."""
    yield
    for process in multiprocessing.active_children():
        process.terminate()


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """The library in C++ is compiled into a folder of its own, in less time."""
    import compiled_anew

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    options = (x for x in compiled_anew.compiler.OPTIONS if x != '-O3')
    monkeypatch.setattr(compiled_anew.compiler, 'OPTIONS', (*options, '-O1'))
    compiled_anew.forget()
    yield compiled_anew.Anew(tmp_path, monkeypatch)
    compiled_anew.forget()
