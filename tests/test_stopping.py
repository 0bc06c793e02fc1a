"""Signals end a program in order, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toolbox import ROOT

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
TOOL = """
import time
from mmbiformer import stopping
from mmbiformer.cli import run_tool

def main():
{}

run_tool(main, needs=())
"""
# Without the package, which takes seconds to import. As of launchers of others, nothing is said.
ALONE = """
import os, sys, time
sys.path.insert(0, 'mmbiformer')
import stopping

with stopping.listening():
{}
"""
WAIT = """
    print('ready', flush=True)
    for _ in range(200):
        time.sleep(0.05)
"""
HOLD = f"""
    stopping.hold()
{WAIT}
"""
SHORT_HOLD = """
    stopping.hold()
    print('ready', flush=True)
    while not stopping.requested():
        time.sleep(0.01)
    print('finished', flush=True)
    stopping.release()
"""
FAILS = """
    stopping.hold()
    print('ready', flush=True)
    while not stopping.requested():
        time.sleep(0.01)
    raise RuntimeError(ERROR)
"""
# A fork of the whole group's gets the signal, too.
FORK = """
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    stopping.hold()
    print('ready', flush=True)
    while not stopping.requested():
        time.sleep(0.01)
    print('child', os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    stopping.release()
"""
LOAD = """
    from torch.utils.data import DataLoader
    loader = DataLoader(range(40), 1, num_workers=2)
    loader.worker_init_fn = stopping.shield_worker(None)
    stopping.hold()
    for number, _ in enumerate(loader):
        if number == 1:
            print('ready', flush=True)
        time.sleep(0.02)
    print('all', number, flush=True)
    stopping.release()
"""
# Processes that load data are still there at the end; objects that refer to each other keep them.
LEAVE = """
    import gc, multiprocessing
    from types import SimpleNamespace
    from torch.utils.data import DataLoader
    loader = DataLoader(range(8), num_workers=2, persistent_workers=True)
    loader.worker_init_fn = stopping.shield_worker(None)
    run = SimpleNamespace(data=iter(loader))
    run.self = run
    next(run.data)
    print('ready', flush=True)
    if DO == 'sleep':
        time.sleep(60)
    if DO == 'collect':
        del run, loader
        gc.collect()
    print(len(multiprocessing.active_children()), file=sys.stderr)
"""


def start(program: str, within: str = ALONE) -> subprocess.Popen:
    done = subprocess.Popen(
        [sys.executable, '-c', within.format(program)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert done.stdout.readline() == 'ready\n', done.stderr.read()
    return done


@pytest.mark.parametrize('number', CODES)
def test_one_line_and_the_code_of_the_signal(number):
    process = start(WAIT, TOOL)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (CODES[number], '', f'stopped by {number.name}\n')


def test_it_waits_where_it_is_held():
    process = start(SHORT_HOLD)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (143, 'finished\n', '')


def test_two_at_a_time_are_one_and_a_later_one_ends_at_once():
    process = start(HOLD)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (143, '', 'ended at once by a second SIGTERM\n')


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        ('a\nb', 'stopped by SIGTERM, with no checkpoint: RuntimeError: a b\n'),
        ('gloo/transport/tcp/pair.cc:1] Read error: Connection reset by peer', ''),
    ],
    ids=['fault', 'another process has ended'],
)
def test_what_fails_after_a_signal_is_one_line(error, said):
    process = start(FAILS.replace('ERROR', repr(error)), TOOL)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, said)


def tell_the_group(process: subprocess.Popen) -> str:
    """As a terminal does, and a launcher then; both are one request."""
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, '')
    return out


def test_a_fork_does_not_answer_for_the_program():
    assert tell_the_group(start(FORK)) == 'child -15\n'


def test_processes_that_load_data_stay_at_work():
    assert tell_the_group(start(LOAD)) == 'all 39\n'


@pytest.mark.parametrize(('what', 'left'), [('exit', 2), ('collect', 0)])
def test_processes_that_load_data_end_with_the_one_that_they_load_for(what, left):
    process = start(LEAVE.replace('DO', repr(what)))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, '', f'{left}\n')


def test_a_second_signal_ends_what_loads_data():
    process = start(LEAVE.replace('DO', "'sleep'"))
    worker = children_of(process.pid)[0]
    os.kill(worker, signal.SIGTERM)
    time.sleep(0.5)
    assert is_alive(worker)
    for _ in range(100):  # two at once are one
        os.kill(worker, signal.SIGTERM)
        time.sleep(0.1)
        if not is_alive(worker):
            break
    has_ended = not is_alive(worker)
    process.kill()
    process.communicate(timeout=20)
    assert has_ended


def is_alive(process: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def children_of(process: int) -> list[int]:
    return [int(x) for x in Path(f'/proc/{process}/task/{process}/children').read_text().split()]
