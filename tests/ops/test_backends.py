"""Which backend is taken, and what is said about it."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from mmbiformer.ops import (
    backends,
    cpp_backend,
    kernel_check,
    library,
    routed_attention,
    triton_backend,
)
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
    backends._log_once.cache_clear()
    yield
    backends._log_once.cache_clear()


@pytest.fixture
def triton(monkeypatch):
    """Sets what the Triton backend says of whether it can run."""

    def set_problem(problem: str | None) -> None:
        row = backends.BACKENDS['triton']._replace(problem=lambda inputs: problem)
        monkeypatch.setitem(backends.BACKENDS, 'triton', row)

    return set_problem


def test_auto_is_no_backend():
    assert list(backends.BACKENDS) == ['reference', 'chunked', 'cpp', 'triton', 'flex']
    assert backends.CHOICES == ('auto', 'reference', 'chunked', 'cpp', 'triton', 'flex')


@pytest.mark.parametrize('problem', [None, 'there is no C++ compiler'])
def test_auto_on_a_cpu_says_once_what_it_takes(monkeypatch, caplog, problem):
    monkeypatch.setattr(cpp_backend, 'fault', lambda: problem)
    name, why = ('chunked', f': {problem}') if problem else ('cpp', ', compiled for this CPU')
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        assert {backends.choose('auto', make_inputs()).name for _ in range(3)} == {name}
    assert [record.getMessage() for record in caplog.records] == [
        f"routed attention: 'auto' takes backend '{name}'{why}"
    ]


@pytest.fixture
def gpu(monkeypatch):
    """Sets what is found on a GPU, of the installation, of the inputs and of the kernels."""

    def set_problems(installation=None, inputs=None, kernels=None) -> None:
        patch = monkeypatch.setattr
        patch(triton_backend, 'installation_problem', lambda: installation)
        patch(triton_backend, 'problem', lambda _: installation or inputs)
        patch(kernel_check, 'problem', lambda _: kernels)

    return set_problems


def test_auto_on_a_gpu_takes_kernels_that_passed_their_check(gpu, caplog):
    gpu()
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        for _ in range(2):
            assert backends.choose('auto', make_inputs(q=OnGpu())).name == 'triton'
    (record,) = caplog.records
    assert "'auto' takes backend 'triton', whose kernels have passed" in record.getMessage()


@pytest.mark.parametrize(
    ('problems', 'level'),
    [
        (dict(installation='triton is too old'), logging.WARNING),
        (dict(inputs='dtype torch.float64 is not float32'), logging.INFO),
        (dict(kernels='the kernels did not pass their check'), logging.WARNING),
    ],
    ids=['installation', 'inputs', 'kernels'],
)
def test_auto_on_a_gpu_says_once_why_it_takes_chunked(gpu, caplog, problems, level):
    gpu(**problems)
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        for _ in range(2):
            assert backends.choose('auto', make_inputs(q=OnGpu())).name == 'chunked'
    (record,) = caplog.records
    assert record.levelno == level
    (problem,) = problems.values()
    assert record.getMessage().endswith(f"takes backend 'chunked' on this GPU: {problem}")


def test_an_old_gpu_is_served_by_chunked(monkeypatch, caplog):
    class Queries(OnGpu):
        dtype, shape = torch.float16, (1, 4, 4, 32)

        def __len__(self):
            return 1

    q = Queries()
    patch = monkeypatch.setattr
    patch(triton_backend, 'installation_problem', lambda: None)
    patch('mmbiformer.ops.triton_regions.INTERPRETED.value', False)
    patch(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    with caplog.at_level(logging.INFO, logger='mmbiformer'):
        assert backends.choose('auto', make_inputs(q=q, k=q, v=q)).name == 'chunked'
    (record,) = caplog.records
    assert record.levelno == logging.INFO  # nothing is broken
    assert record.getMessage().endswith('the compute capability of the GPU, 7.5, is below 8.0')
    with pytest.raises(
        ValueError, match=r"^backend 'triton' .* 7.5, is below 8.0; take 'chunked'"
    ):
        backends.choose('triton', make_inputs(q=q, k=q, v=q))


def test_kernels_that_did_not_pass_are_refused(gpu):
    gpu(kernels='the output is off')
    with pytest.raises(ValueError, match=r"^backend 'triton' cannot run: the output is off; "):
        backends.choose('triton', make_inputs(q=OnGpu()))


def test_a_compiled_program_chooses_when_it_runs(monkeypatch):
    """So that the choice is logged, and the check of the kernels not compiled."""
    inputs, chosen = make_inputs(), []

    def choose_auto(inputs):
        chosen.append(type(inputs.q))
        return backends.BACKENDS['chunked']

    monkeypatch.setattr(library, 'choose_auto', choose_auto)
    attend = torch.compile(routed_attention, backend='eager', fullgraph=True)
    options = dict(partition_factor=2, num_heads=1, scale=1.0)
    out = attend(*inputs[:4], **options)
    assert torch.equal(out, routed_attention(*inputs[:4], **options, backend='chunked'))
    assert chosen[-1] is torch.Tensor


@pytest.mark.parametrize('error', [RuntimeError, torch.OutOfMemoryError])
def test_kernels_that_fail_name_the_way_out(monkeypatch, error):
    def forward(inputs):
        raise error('illegal memory access')

    row = backends.BACKENDS['triton']._replace(forward=forward)
    monkeypatch.setitem(backends.BACKENDS, 'triton', row)
    with pytest.raises(error) as caught:
        library.run(row, make_inputs())
    is_named = 'start again with MMBIFORMER_ATTENTION_BACKEND=chunked' in str(caught.value)
    assert is_named == (error is RuntimeError)


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
        return torch.ops.mmbiformer.routed_attention(
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
