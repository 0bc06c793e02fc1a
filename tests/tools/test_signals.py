"""A sample of tests/helpers/signals.py: a signal to two processes that train together, or to one
of them; it says what must hold."""

import os
import sys

from toolbox import ROOT, run_command


def test_signals_and_values_that_are_not_finite() -> None:
    # In a process of its own, which forks: this one may have threads.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers'}
    options = ['--signals', 1, '--steps', 1, '--pairs', 1, '--workers', 0]
    done = run_command(sys.executable, ROOT / 'tests/helpers/signals.py', *options, env=env)
    last = done.stdout.splitlines()[-1]
    assert '1 signals, ' in last and '1 spoilt, ' in last
