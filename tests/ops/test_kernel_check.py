"""The check of the kernels: what it finds, what it remembers, and what follows."""

import json
import logging
import subprocess
import sys
import time
from itertools import product

import pytest
import torch
from attention_cases import needs_triton

from mmbiformer.ops import kernel_check, triton_backend
from mmbiformer.ops.kernel_check import Setup

# Regions of few tokens, as the interpreter takes its time.
SMALL = Setup('cpu', 'float32', 16, 3, has_pads=True)


@pytest.fixture(autouse=True)
def _forget(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    kernel_check.fault.cache_clear()
    yield
    kernel_check.fault.cache_clear()


@pytest.fixture
def tried(monkeypatch) -> list:
    """Setups that were tried; all pass but those of 128 channels."""
    setups = []

    def try_(setup: Setup) -> str | None:
        setups.append(setup)
        return 'the output is off' if setup.head_dim == 128 else None

    monkeypatch.setattr(kernel_check, 'try_apart', try_)
    return setups


@needs_triton
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('partition_factor', [1, 2, 8, 16])
def test_problems_reach_all_tiles(dtype, partition_factor):
    setup = Setup('meta', dtype, 32, partition_factor, has_pads=True)
    chosen, kinds = set(), set()
    for _, inputs, _ in kernel_check.problems(setup):
        chosen.add(tuple(triton_backend.choose_tiles(inputs)))
        kinds.add((inputs.partition.is_padded, inputs.indices.shape[2] > 1))
    table = triton_backend.tiles_by_tokens(getattr(torch, dtype))
    assert len(table) == (2 if dtype == 'float32' else 3)
    assert chosen == set(table.values())
    # One region has neither padding nor a choice.
    both = (False,) if partition_factor == 1 else (False, True)
    assert kinds == set(product(both, both))


def test_problems_have_regions_of_padding_alone():
    for name, inputs, _ in kernel_check.problems(Setup('meta', 'float32', 32, 16, False)):
        rows, _ = inputs.partition.real_shape
        assert rows == (15 if 'with padding' in name else 16)


@needs_triton
@pytest.mark.parametrize(
    ('dtype', 'has_pads'), [('float32', False), ('float16', True), ('bfloat16', True)]
)
def test_right_kernels_pass(monkeypatch, dtype, has_pads):
    monkeypatch.setattr(kernel_check, 'REGIONS', ((2, 3),))
    assert kernel_check.find_fault(SMALL._replace(dtype=dtype, has_pads=has_pads)) is None


# What is made wrong, and where it shows first.
WRONG = {
    'LOG2_E': 'the output is off by',
    '_partial_slot': 'the gradient of k is off by',
    'num_padded_keys': 'the gradient of pad_key is off by',
}


@needs_triton
@pytest.mark.parametrize(('name', 'message'), WRONG.items(), ids=WRONG)
def test_wrong_kernels_do_not(monkeypatch, name, message):
    import wrong_kernels

    from mmbiformer.ops import triton_kernels

    monkeypatch.setattr(kernel_check, 'REGIONS', ((2, 3),))
    monkeypatch.setattr(triton_kernels, name, getattr(wrong_kernels, name))
    assert kernel_check.find_fault(SMALL).startswith(message)


def test_a_check_that_fails_is_a_fault():
    """Here the process has no GPU; elsewhere a compiler raises, or a kernel fails."""
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    found = kernel_check.try_apart(SMALL._replace(device='cuda:0'))
    assert found.startswith('it ended with code 1 and said: ')
    assert 'NVIDIA' in found or 'CUDA' in found


def test_a_check_that_does_not_end_is_a_fault(monkeypatch):
    monkeypatch.setattr(kernel_check, 'SECONDS', 0.01)
    assert kernel_check.try_apart(SMALL) == 'it did not end within 0.01 s'


def test_a_pass_is_remembered(tried, tmp_path, monkeypatch):
    other = SMALL._replace(dtype='float16')
    for _ in range(2):
        assert kernel_check.fault(SMALL) is None
        assert kernel_check.fault(other) is None
        kernel_check.fault.cache_clear()  # as another process
    assert tried == [SMALL, other]
    path, _ = sorted(tmp_path.glob('mmbiformer/kernel_checks/*.json'))
    content = json.loads(path.read_text())
    assert content['versions']['torch'] == torch.__version__

    path.write_text('{')  # a full disk, say
    kernel_check.fault(SMALL), kernel_check.fault(other)
    assert len(tried) == 3

    kernel_check.fault.cache_clear()
    monkeypatch.setenv('TRITON_PTXAS_PATH', '/newer/ptxas')
    kernel_check.fault(SMALL)
    assert len(tried) == 4


def test_a_fault_is_not(tried, tmp_path):
    wide = SMALL._replace(head_dim=128)
    for _ in range(2):
        found = kernel_check.fault(wide)
    assert found.startswith("the kernels of 'triton' did not pass their check: the output is off")
    assert f'torch {torch.__version__}' in found
    kernel_check.fault.cache_clear()
    kernel_check.fault(wide)
    assert tried == [wide, wide]
    assert not list(tmp_path.iterdir())


def test_a_pass_that_cannot_be_written_is_said_once(tried, tmp_path, monkeypatch, caplog):
    (tmp_path / 'mmbiformer').write_text('')  # a file in the way, for users with all rights too
    with caplog.at_level(logging.WARNING, logger='mmbiformer'):
        for _ in range(2):
            assert kernel_check.fault(SMALL) is None
    (record,) = caplog.records
    assert 'each process repeats the check until XDG_CACHE_HOME names' in record.getMessage()
    assert len(tried) == 1


# What each of two processes runs that come to the same GPU at the same time.
RACE = """
import sys, time
from mmbiformer.ops import kernel_check
kernel_check.try_apart = lambda setup: time.sleep(float(sys.argv[1]))
while time.time() < float(sys.argv[2]):
    pass
print(kernel_check.fault(kernel_check.Setup('cpu', 'float32', 16, 3, True)))
"""


@needs_triton
def test_two_processes_check_at_once(tried, tmp_path):
    start = str(time.time() + 4)
    command = sys.executable, '-c', RACE
    runs = [
        subprocess.Popen([*command, wait, start], stdout=subprocess.PIPE, text=True)
        for wait in ('0.2', '0.2', '0.21')
    ]
    assert [run.communicate(timeout=60)[0] for run in runs] == ['None\n'] * 3
    # One file, whole, and nothing beside it; a third process finds it.
    (path,) = tmp_path.glob('mmbiformer/kernel_checks/*')
    assert json.loads(path.read_text())['setup']['head_dim'] == 16
    assert kernel_check.fault(Setup('cpu', 'float32', 16, 3, True)) is None
    assert not tried
