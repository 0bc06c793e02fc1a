"""Which backend is taken, and what is said about it."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from mmbiformer.ops import backends, library
from mmbiformer.ops.inputs import Inputs


def make_inputs(**change) -> Inputs:
    """Inputs of one head of 32 channels on a 4 x 4 map, cut into 2 x 2 regions."""
    x = torch.rand(1, 4, 4, 32)
    indices = torch.zeros(1, 4, 1, dtype=torch.int64)
    arguments = dict(q=x, k=x, v=x, indices=indices, pad_key=None, pad_value=None)
    return Inputs(**{**arguments, 'partition_factor': 2, 'num_heads': 1, 'scale': 1.0, **change})


class OnGpu:
    """What the choice looks at of queries on a GPU."""

    is_cuda = True
    device = torch.device('cuda')


@pytest.fixture(autouse=True)
def _forget():
    backends._log_auto.cache_clear()
    yield
    backends._log_auto.cache_clear()


@pytest.fixture
def triton(monkeypatch):
    """Sets what the Triton backend says of whether it can run."""

    def set_problem(problem: str | None) -> None:
        row = backends.BACKENDS['triton']._replace(problem=lambda inputs: problem)
        monkeypatch.setitem(backends.BACKENDS, 'triton', row)

    return set_problem


def test_auto_is_no_backend():
    assert list(backends.BACKENDS) == ['reference', 'chunked', 'triton']
    assert backends.CHOICES == ('auto', 'reference', 'chunked', 'triton')


def test_auto_on_a_cpu_says_once_why_not_triton(caplog):
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        assert {backends.choose('auto', make_inputs()).name for _ in range(3)} == {'chunked'}
    assert [record.getMessage() for record in caplog.records] == [
        "routed attention: 'auto' takes backend 'chunked'; 'triton' needs a CUDA GPU"
    ]


def test_auto_on_a_gpu_takes_chunked_and_says_once_how_to_have_triton(triton, caplog):
    triton('never asked')
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        for _ in range(2):
            assert backends.choose('auto', make_inputs(q=OnGpu())).name == 'chunked'
    (record,) = caplog.records
    assert "takes backend 'chunked'" in record.getMessage()
    assert 'not been proven on a GPU, are taken by attention_backend=' in record.getMessage()


def test_a_choice_that_cannot_run_is_an_error(triton, monkeypatch):
    triton('triton is not installed')
    with pytest.raises(
        ValueError, match=r"^backend 'triton' cannot run: triton is not installed; "
    ):
        backends.choose('triton', make_inputs())
    # Asked for by name, whatever the environment says too.
    monkeypatch.setattr(backends, '_FROM_ENVIRONMENT', 'triton')
    with pytest.raises(ValueError, match=r"^backend 'triton' cannot run: triton is not inst"):
        backends.choose('triton', make_inputs())
    with pytest.raises(ValueError, match=rf"'triton' \(from {backends.VARIABLE}\) cannot run: "):
        backends.choose('auto', make_inputs())


def test_a_compiled_choice_that_cannot_run_is_an_error(triton):
    triton('triton is not installed')
    inputs = make_inputs()

    @torch.compile(backend='eager', fullgraph=True)
    def attend(x):
        return library.routed_attention(
            x, x, x, inputs.indices, None, None, 2, 1, 1.0, None, 'triton'
        )

    with pytest.raises(Exception, match=r"backend 'triton' cannot run: triton is not installed"):
        attend(inputs.q)


def test_chunked_asks_nothing(triton, caplog):
    triton('never asked')
    assert backends.choose('chunked', make_inputs(q=OnGpu())).name == 'chunked'
    assert not caplog.records


@pytest.mark.parametrize(
    ('argument', 'variable', 'outcome'),
    [
        ('auto', None, 'chunked'),
        ('auto', 'reference', 'reference'),
        ('chunked', 'reference', 'chunked'),
        ('auto', 'fast', "MMBIFORMER_ATTENTION_BACKEND 'fast' is unknown: choose from auto,"),
    ],
)
def test_the_environment_decides_where_the_argument_does_not(argument, variable, outcome):
    code = (
        'import torch\n'
        'from mmbiformer.ops.backends import choose\n'
        'from mmbiformer.ops.inputs import Inputs\n'
        'x = torch.rand(1, 2, 2, 4)\n'
        f'print(choose({argument!r}, Inputs(x, x, x, x, None, None, 1, 1, 1.0)).name)'
    )
    env = {name: value for name, value in os.environ.items() if name != backends.VARIABLE}
    env.update({} if variable is None else {backends.VARIABLE: variable})
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    if outcome in backends.BACKENDS:
        assert (done.returncode, done.stdout) == (0, f'{outcome}\n')
    else:
        assert outcome in done.stderr
