"""Which backend is taken, and what is said about it."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from mmbiformer.ops import backends

HERE = torch.rand(1, 4, 4, 32)


class OnGpu:
    """What the choice looks at of queries on a GPU."""

    is_cuda = True
    device = torch.device('cuda')


@pytest.fixture(autouse=True)
def _forget():
    backends._log_once.cache_clear()
    yield
    backends._log_once.cache_clear()


def test_auto_on_a_cpu_says_once_why_not_triton(caplog):
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        assert [backends.resolve('auto', HERE, 1) for _ in range(3)] == ['chunked'] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "routed attention: backend 'chunked', as 'triton' cannot run: "
        'q is on cpu, and it needs a CUDA GPU'
    ]


@pytest.mark.parametrize(
    ('problem', 'taken'), [(None, 'triton'), ('dtype torch.float64 is not one', 'chunked')]
)
def test_auto_on_a_gpu(monkeypatch, caplog, problem, taken):
    monkeypatch.setattr(backends.triton_backend, 'problem', lambda *_: problem)
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        assert backends.resolve('auto', OnGpu(), 1) == taken
    (record,) = caplog.records
    assert f"backend '{taken}'" in record.getMessage()
    assert problem is None or problem in record.getMessage()


def test_a_choice_that_cannot_run_is_an_error(monkeypatch):
    monkeypatch.setattr(backends.triton_backend, 'problem', lambda *_: 'triton is not installed')
    message = r"backend 'triton' cannot run: triton is not installed; take 'chunked'"
    with pytest.raises(ValueError, match=message):
        backends.resolve('triton', HERE, 1)


def test_chunked_asks_nothing(monkeypatch, caplog):
    monkeypatch.setattr(backends.triton_backend, 'problem', lambda *_: 1 / 0)
    assert backends.resolve('chunked', OnGpu(), 1) == 'chunked'
    assert not caplog.records


@pytest.mark.parametrize(
    ('argument', 'variable', 'outcome'),
    [
        ('auto', None, 'auto'),
        ('auto', 'reference', 'reference'),
        ('chunked', 'reference', 'chunked'),
        ('auto', 'fast', "MMBIFORMER_ATTENTION_BACKEND 'fast' is unknown: choose from auto,"),
    ],
)
def test_the_environment_decides_where_the_argument_does_not(argument, variable, outcome):
    code = (
        'import os\n'
        f'os.environ.update({ {} if variable is None else {backends.VARIABLE: variable} })\n'
        f'from mmbiformer.ops.backends import requested; print(requested({argument!r}))'
    )
    env = {name: value for name, value in os.environ.items() if name != backends.VARIABLE}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    if outcome in backends.BACKENDS:
        assert (done.returncode, done.stdout) == (0, f'{outcome}\n')
    else:
        assert outcome in done.stderr
