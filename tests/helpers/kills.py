"""Real trainings that are killed at random moments, again and again, and gone on with.

python tests/helpers/kills.py --kills 200 --inside 0.5 --pairs 0.25

A training of a segmenter on the generated shapes saves every second step. It is killed by SIGKILL,
gone on with by --resume, killed again, and so on to its last step, when the next one begins. After
each kill every file that has a checkpoint's name must be whole, and the newest at least as new as
the last one that the run had finished; the run that follows must begin there. What ends must have
trained the same weights, and found the same metrics, bit for bit, as a training that
nobody killed. The last line says how many kills there were, and how many of them inside a save.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from random_runs import find_differences
from toolbox import CONFIGS, IN_PROCESS, run_tool

import mmbiformer.hooks.checkpoint_hook as checkpoint_hook
from mmbiformer.checkpoints import find_damage, find_newest
from mmbiformer.datasets.shapes import make_shapes

STEPS, INTERVAL = 16, 2
CONFIG = f"""
_base_ = '{CONFIGS}/fpn_biformer_quickstart_shapes.py'
train_cfg = dict(max_iters={STEPS}, val_interval=4)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval={INTERVAL}, max_keep_ckpts=2))
custom_hooks = [dict(type='Telling')]
"""
PIPE = []
LOGGING = os.O_CREAT | os.O_RDWR | os.O_TRUNC


def log_of(work_dir: Path, rank: int) -> Path:
    """What a process of the last training in a folder has printed."""
    return work_dir.with_name(f'{work_dir.name}.log{rank}')


def tell(word: str, number: int = 0) -> None:
    """Say to the process that kills what this one is at; a line of so few bytes goes whole."""
    os.write(PIPE[0], f'{word} {number}\n'.encode())


@HOOKS.register_module(force=True)
class Telling(Hook):
    """Tells the steps of a training."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        tell('step', runner.iter)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        tell('validation', runner.iter)

    def after_run(self, runner) -> None:
        tell('end')


def tell_saves() -> None:
    """Have this process tell when a save begins and ends, and a write within it."""

    def telling(function, word):
        def told(*args, **kwargs):
            tell(f'{word}_begins')
            done = function(*args, **kwargs)
            tell(f'{word}_ends', args[2] if word == 'save' else 0)
            return done

        return told

    hook = checkpoint_hook.CrashSafeCheckpointHook
    hook._save_checkpoint_with_step = telling(hook._save_checkpoint_with_step, 'save')
    checkpoint_hook.write_checkpoint = telling(checkpoint_hook.write_checkpoint, 'write')


class Training:
    """One or two forked processes of a training, and what they have told.

    Args:
        work_dir (Path): Where the training is, and may have begun.
        data_root (Path): The generated shapes.
        processes (int): One, or two that train together.
        options (list[str]): For ``--cfg-options``. By default each loads data itself.
    """

    def __init__(
        self, work_dir: Path, data_root: Path, processes: int, options: list[str] = IN_PROCESS
    ) -> None:
        self.told: list[tuple[bytes, int]] = []
        self.took: dict[str, list[float]] = dict(save=[], write=[])
        self.began: dict[str, float] = {}
        self.unread = b''
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        resume = ['--resume'] if [*work_dir.glob('*.pth')] else []
        args = [work_dir.with_name('config.py'), *resume, '--work-dir', work_dir]
        args += ['--data-root', data_root]
        if processes > 1:
            args += ['--launcher', 'pytorch']
        args += ['--cfg-options', *options]
        self.children = []
        for rank in range(processes):
            child = os.fork()
            if child == 0:
                self._train(args, rank, processes, port, write)
            self.children.append(child)
        os.close(write)

    @staticmethod
    def _train(args: list, rank: int, processes: int, port: int, pipe: int) -> None:
        """What a forked process does; it ends in it."""
        code = 1
        try:
            os.setpgid(0, 0)  # as of a terminal or a job, with the processes that load data
            log = os.open(log_of(args[args.index('--work-dir') + 1], rank), LOGGING)
            os.dup2(log, 1)
            os.dup2(log, 2)
            PIPE[:] = [pipe if rank == 0 else os.open(os.devnull, os.O_WRONLY)]
            names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_PORT=port)
            os.environ.update({key: str(value) for key, value in names.items()})
            os.environ['MASTER_ADDR'] = '127.0.0.1'
            tell_saves()
            run_tool('train', *args)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def read(self) -> None:
        """Take in what has been told since."""
        with contextlib.suppress(BlockingIOError):
            self.unread += os.read(self.pipe, 1 << 16)
        *lines, self.unread = self.unread.split(b'\n')
        for line in lines:
            word, number = line.split()
            self.told.append((word, int(number)))
            kind, _, moment = word.decode().partition('_')
            if moment == 'begins':
                self.began[kind] = time.monotonic()
            elif moment == 'ends':
                self.took[kind].append(time.monotonic() - self.began[kind])

    def count(self, word: str) -> int:
        return sum(told == word.encode() for told, _ in self.told)

    def wait_for(self, word: str, count: int = 1, seconds: float = 120) -> bool:
        """Wait until a word has been told so often; False if the training ends before."""
        end = time.monotonic() + seconds
        while self.count(word) < count:
            assert time.monotonic() < end, f'{word}: nothing told for {seconds} s'
            is_over = all(self._has_ended(child) for child in self.children)
            time.sleep(0.0005)
            self.read()
            if is_over:
                return self.count(word) >= count
        return True

    @staticmethod
    def _has_ended(child: int) -> bool:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        for child in random.sample(self.children, len(self.children)):
            os.kill(child, signal.SIGKILL)

    def wait(self) -> list[int]:
        """Wait for the end: exit codes, negative for signals."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(x, 0)[1]) for x in self.children]
        self.read()
        os.close(self.pipe)
        return codes


def check(work_dir: Path, finished: int) -> int:
    """Check a folder that a kill left; returns the step of its newest checkpoint.

    Args:
        work_dir (Path): Folder of the run.
        finished (int): The last step whose save had ended.
    """
    paths = [*work_dir.glob('*.pth')]
    for path in paths:
        damage = find_damage(path)
        assert damage is None, f'{path.name} {damage}'
    newest, passed_over = find_newest(work_dir)
    assert not passed_over, passed_over
    step = int(newest.stem.rpartition('_')[2])
    assert step >= finished, f'{newest.name}, and {finished} was saved'
    last = Path((work_dir / 'last_checkpoint').read_text())
    assert last in paths, f'last_checkpoint names {last}'
    content = torch.load(newest, map_location='cpu', weights_only=False)
    best = content['message_hub']['runtime_info'].get('best_ckpt')
    assert best is None or Path(best) in paths, f'{best} is not there'
    return step


def torture(kills: int, inside: float, pairs: float, seed: int) -> dict[str, int]:
    """Kill trainings so many times.

    Args:
        kills (int): How often.
        inside (float): The share of kills that wait for a save and fall shortly after it began.
        pairs (float): The share of trainings of two processes.
        seed (int): Of the moments.
    """
    rng = random.Random(seed)
    counts = dict.fromkeys(('kills', 'in save', 'in write', 'of pairs', 'trainings completed'), 0)
    took = dict(save=[], write=[])
    folder = Path(tempfile.mkdtemp(prefix='kills-'))
    data_root = make_shapes(folder / 'shapes', num_train=8, num_val=1)
    (folder / 'config.py').write_text(CONFIG)
    sizes = (1, 2) if pairs else (1,)
    wholes = {size: _train_whole(folder, data_root, size) for size in sizes}
    number, at = 0, 0
    processes = 2 if rng.random() < pairs else 1
    while counts['kills'] < kills or at:
        work_dir = folder / f'run{number}'
        training = Training(work_dir, data_root, processes)
        if counts['kills'] == kills:
            training.wait_for('end')  # the last one may come to its end
        # The first save of a folder is let through: before it there is nothing to go on from.
        alive = training.wait_for('step') and (at > 0 or training.wait_for('save_ends'))
        if at and alive:
            first = next(step for word, step in training.told if word == b'step')
            assert first == at, f'resumed at {first} instead of {at}'
        for kind, durations in training.took.items():
            took[kind] += durations
        if alive and rng.random() < inside:
            # Most of a save is the writing of the config into it.
            kind = rng.choice(['save', 'write'])
            begun = training.count(f'{kind}_begins')
            alive = training.wait_for(f'{kind}_begins', begun + rng.randint(1, 3))
            time.sleep(rng.uniform(0, statistics.median(took[kind] or [0.1])) * alive)
        elif alive:
            steps = training.count('step') + rng.randint(1, 8)
            alive = training.wait_for('step', steps)
            time.sleep(rng.uniform(0, 0.3) * alive)
        training.kill()
        codes = training.wait()
        if training.count('end'):
            # Killed behind the last step or not at all: whole, and the next one begins.
            assert set(codes) <= {0, -signal.SIGKILL}, codes
            assert check(work_dir, STEPS) == STEPS
            differences = find_differences(wholes[processes], _load_last(work_dir))
            assert differences == [], f'{differences[:9]}: see {work_dir}'
            counts['trainings completed'] += 1
            shutil.rmtree(work_dir)
            number, at = number + 1, 0
            processes = 2 if rng.random() < pairs else 1
            continue
        # One of two may just have ended.
        as_killed = set(codes) <= {0, -signal.SIGKILL} and codes[0] != 0
        assert as_killed, f'{codes}: see {work_dir}.log0'
        finished = max([at, *(step for word, step in training.told if word == b'save_ends')])
        at = check(work_dir, finished)
        counts['kills'] += 1
        counts['of pairs'] += processes == 2
        for kind in ('save', 'write'):
            is_inside = training.count(f'{kind}_begins') > training.count(f'{kind}_ends')
            counts[f'in {kind}'] += is_inside
        print(counts, f'step {at}', flush=True)
    shutil.rmtree(folder)
    return counts


def _train_whole(folder: Path, data_root: Path, processes: int) -> dict:
    """The last checkpoint of a training that nobody kills."""
    work_dir = folder / f'whole{processes}'
    assert Training(work_dir, data_root, processes).wait() == [0] * processes
    return _load_last(work_dir)


def _load_last(work_dir: Path) -> dict:
    path = Path((work_dir / 'last_checkpoint').read_text())
    return torch.load(path, map_location='cpu', weights_only=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--inside', type=float, default=0.5, help='share of kills inside a save')
    parser.add_argument('--pairs', type=float, default=0.25, help='share of two processes')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    import mmseg.registry  # noqa: F401  once, before the forks

    counts = torture(args.kills, args.inside, args.pairs, args.seed)
    print(', '.join(f'{count} {name}' for name, count in counts.items()))


if __name__ == '__main__':
    sys.exit(main())
