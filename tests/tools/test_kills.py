"""A sample of tests/helpers/kills.py, which kills real trainings; it says what must hold."""

import os
import sys

import pytest
from toolbox import ROOT, run_command


@pytest.mark.parametrize('pairs', [0, 1], ids=['one process', 'two processes'])
def test_killed_inside_a_save_and_gone_on_with(pairs) -> None:
    # In a process of its own, which forks: this one may have threads.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers'}
    options = ['--kills', 2, '--inside', 1, '--pairs', pairs]
    done = run_command(sys.executable, ROOT / 'tests/helpers/kills.py', *options, env=env)
    assert '2 kills, ' in done.stdout.splitlines()[-1]
    assert f'{2 * pairs} of pairs' in done.stdout.splitlines()[-1]
