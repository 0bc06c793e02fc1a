"""A sample of tests/helpers/signals.py: a signal to two processes that train together, or to one
of them; it says what must hold."""

import os
import sys

from toolbox import ROOT, run_command


def test_two_processes_stop_at_the_same_step() -> None:
    # In a process of its own, which forks: this one may have threads.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers'}
    options = ['--signals', 1, '--steps', 0, '--pairs', 1, '--workers', 0]
    done = run_command(sys.executable, ROOT / 'tests/helpers/signals.py', *options, env=env)
    assert '1 signals, 1 step, ' in done.stdout.splitlines()[-1]
