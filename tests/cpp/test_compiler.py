"""The library in C++: compiled once, kept, and done without where it cannot be."""

import logging
import stat
from pathlib import Path

import pytest
import torch
from compiled_anew import forget
from torch._subclasses import FakeTensorMode

from mmbiformer.cpp import compiler, depthwise_conv
from mmbiformer.ops import cpp_backend


def said() -> str:
    with pytest.raises(compiler.CannotCompile) as error:
        compiler.load()
    return str(error.value)


def test_it_is_compiled_once(anew, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        library = compiler.load()
    assert library.is_new
    assert 'compiled for this CPU' in caplog.text
    assert anew.libraries() == [library.path]
    modified = library.path.stat().st_mtime_ns
    forget()
    assert not compiler.load().is_new
    assert library.path.stat().st_mtime_ns == modified
    monkeypatch.setattr(compiler, 'OPTIONS', (*compiler.OPTIONS, '-Wall'))
    forget()
    assert compiler.load().is_new
    assert len(anew.libraries()) == 2


@pytest.mark.parametrize('source', ['routed_attention.cpp', 'vectors.h'])
def test_it_is_compiled_again_where_a_source_changes(anew, source):
    compiler.load()
    anew.change(source, '#include <cstd', '#include <cstdio>\n#include <cstd')
    assert compiler.load().is_new
    assert len(anew.libraries()) == 2


def test_what_is_wrong_is_compiled_again(anew):
    found = compiler.load().find_fault(lambda: 'too large')
    assert found == 'what was compiled for this CPU is wrong: too large'
    assert not anew.libraries()
    forget()
    assert compiler.load().find_fault(lambda: None) is None
    assert len(anew.libraries()) == 1
    forget()
    assert compiler.load().find_fault(lambda: 'not asked again') is None


MODES = {
    'no gradients': torch.no_grad,
    'inference': torch.inference_mode,
    'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'no values': FakeTensorMode,
}


@pytest.mark.parametrize('mode', MODES.values(), ids=MODES)
def test_the_first_use_may_be_in_any_mode(anew, mode):
    with mode():
        assert cpp_backend.fault() is None
        assert depthwise_conv.fault() is None
    assert len(anew.libraries()) == 1


def test_without_a_compiler(anew, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert said() == 'there is no C++ compiler (no-such-compiler): install g++, or set CXX'


def test_it_can_be_forbidden(anew, monkeypatch):
    monkeypatch.setenv('MMBIFORMER_CPP', '0')
    assert said() == 'MMBIFORMER_CPP=0 forbids it'


def test_a_compiler_that_fails(anew, monkeypatch):
    program = anew.folder / 'compiler'
    program.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo error: too old >&2; exit 1; }\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('CXX', str(program))
    assert said() == f'{program} failed and said: error: too old'


def test_a_cache_that_cannot_be_written(anew):
    (anew.folder / 'mmbiformer').write_text('a file')
    assert compiler.load().is_new
    assert not anew.libraries()


def test_threads_are_those_of_pytorch():
    compiler.load()
    loaded = {line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines()}
    assert len([x for x in loaded if 'libgomp' in Path(x).name]) == 1
