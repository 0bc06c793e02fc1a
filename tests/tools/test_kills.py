"""A sample of tests/helpers/kills.py, which kills real trainings; it says what must hold."""

import os
import sys

from toolbox import ROOT, run_command


def test_killed_inside_a_save_and_gone_on_with() -> None:
    # In a process of its own, which forks: this one may have threads.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers'}
    options = ['--kills', 2, '--inside', 1, '--pairs', 0]
    done = run_command(sys.executable, ROOT / 'tests/helpers/kills.py', *options, env=env)
    assert '2 kills, ' in done.stdout.splitlines()[-1]
