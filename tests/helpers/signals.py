"""Real trainings that get signals at random moments, and values that are not finite.

python tests/helpers/signals.py --signals 100 --pairs 0.25 --workers 0.3 --steps 50

The trainings are those of kills.py, and so is what must hold of the folders that they leave.
After a signal the training must end within seconds with 128 and the signal's number, print one
line and no traceback, and leave a checkpoint from which the next one goes on with the very next
step. Before training begins there is nothing to save, and it ends with the line alone.

Where a loss, a gradient or an image is spoilt, the training must end with exit code 2 and a line
that names it, the step and the images, or leave the batch out and come to its end.
"""

import argparse
import contextlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from kills import CONFIG, STEPS, Training, check, log_of, tell
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from toolbox import IN_PROCESS

from mmbiformer.checkpoints import list_nonfinite, load_file
from mmbiformer.datasets.shapes import make_shapes

WORKERS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val')
    for option in ('num_workers=2', 'persistent_workers=True')
]
# Where a signal falls: shortly after one of these began.
MOMENTS = ('step', 'validation', 'save', 'write', 'start')
KINDS = ('loss', 'gradient', 'image')
SECONDS = 15


@HOOKS.register_module(force=True)
class Spoiling(Hook):
    """Spoils one iteration of a segmenter.

    Args:
        step (int): Which, from 1.
        kind (str): What: 'loss', 'gradient' or 'image'.
        process (int): In which of those that train together.
    """

    def __init__(self, step: int, kind: str, process: int) -> None:
        self.step, self.kind, self.process = step, kind, process

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 != self.step or runner.rank != self.process:
            return
        model = getattr(runner.model, 'module', runner.model)
        tell('spoilt')
        if self.kind == 'image':
            image = data_batch['inputs'][-1].float()
            image[:, 3, 4] = math.nan
            data_batch['inputs'][-1] = image
        elif self.kind == 'loss':
            head = model.decode_head
            clean = head.loss_by_feat

            def spoilt(*args):
                del head.loss_by_feat
                return {name: x * math.inf for name, x in clean(*args).items()}

            head.loss_by_feat = spoilt
        else:
            weight = model.decode_head.conv_seg.weight

            def spoil(gradient):
                handle.remove()
                return gradient * math.nan

            handle = weight.register_hook(spoil)


class Stopping(Training):
    """A training that gets signals."""

    def stop(self, number: int, whole: bool, only: int | None = None) -> tuple[list[int], float]:
        """Send a signal, as a terminal, a scheduler or a launcher does; returns codes and seconds.

        Args:
            number (int): The signal.
            whole (bool): Whether processes that load data get it, too.
            only (int, optional): The one of several processes that gets it; the others get a
                SIGTERM when one has ended, as by torchrun.
        """
        begin = time.monotonic()
        for child in self.children if only is None else [self.children[only]]:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whole else os.kill)(child, number)
        told_others = False
        while not all(self._has_ended(x) for x in self.children):
            if not told_others and any(self._has_ended(x) for x in self.children):
                time.sleep(0.1)
                for child in self.children:
                    if not self._has_ended(child):
                        os.kill(child, signal.SIGTERM)
                told_others = True
            assert time.monotonic() < begin + 60, 'it hangs'
            time.sleep(0.01)
        seconds = time.monotonic() - begin
        return self.wait(), seconds


def lines_of(work_dir: Path, processes: int) -> list[str]:
    """What the processes have printed, without which there is no traceback."""
    text = ''.join(log_of(work_dir, rank).read_text() for rank in range(processes))
    assert 'Traceback' not in text, text
    assert 'Exception ignored' not in text, text
    return text.splitlines()


def send(signals: int, pairs: float, workers: float, seed: int) -> dict[str, int]:
    """Send so many signals to trainings; returns counts, of moments too.

    Args:
        signals (int): How many.
        pairs (float): The share of trainings of two processes.
        workers (float): The share with two processes that load data.
        seed (int): Of the moments.
    """
    rng = random.Random(seed)
    counts = dict.fromkeys(('signals', *MOMENTS, 'SIGINT', 'of pairs', 'with workers'), 0)
    counts.update(saved=0, late=0)
    longest = 0.0
    folder = Path(tempfile.mkdtemp(prefix='signals-'))
    data_root = make_shapes(folder / 'shapes', num_train=8, num_val=4)
    (folder / 'config.py').write_text(CONFIG)
    number, at = 0, 0
    while counts['signals'] < signals:
        work_dir = folder / f'run{number}'
        processes = 2 if rng.random() < pairs else 1
        loading = rng.random() < workers
        training = Stopping(work_dir, data_root, processes, WORKERS if loading else IN_PROCESS)
        moment = MOMENTS[counts['signals'] % len(MOMENTS)]
        if moment == 'start' and processes == 2:
            moment = 'step'  # a process that waits for another to join sees no signal
        if moment == 'start':
            time.sleep(rng.uniform(0, 4))
            alive = True
        else:
            word = moment if moment in ('step', 'validation') else f'{moment}_begins'
            alive = training.wait_for(word, rng.randint(1, 3))
            time.sleep(rng.uniform(0, 0.2) * alive)
        training.read()
        which = rng.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
        lone = processes == 2 and moment == 'step' and rng.random() < 0.5
        begun = training.count('step') > 0
        codes, seconds = training.stop(which, loading and rng.random() < 0.5, 0 if lone else None)
        steps = [step for word, step in training.told if word == b'step']
        assert not steps or steps[0] == at, f'resumed at {steps[0]} instead of {at}'
        lines = lines_of(work_dir, processes)
        if training.count('end'):
            # Too late, or between the last step and the end.
            assert set(codes) <= {0, 128 + which, -which}, codes
            counts['late'] += 1
        else:
            # In a validation the one that is told ends by itself, and the other loses it.
            others = {143, 2} if lone else {128 + which}
            assert codes[0] == 128 + which, f'{codes}: see {log_of(work_dir, 0)}'
            assert set(codes[1:]) <= {128 + which, *others}, codes
            assert seconds < SECONDS, seconds
            longest = max(longest, seconds)
            said = [x for x in lines if f'stopped by {which.name}' in x]
            saved = [x for x in said if '--resume goes on' in x]
            assert len(saved) <= 1 and (saved or not begun), lines
            assert len(said) == 1 or not begun, lines
            if saved:
                at = check(work_dir, (steps or [at - 1])[-1] + 1)
                assert at == (steps or [at - 1])[-1] + 1, f'step {at} after {steps}'
            counts['signals'] += 1
            counts['saved'] += bool(saved)
            counts[moment] += 1
            counts['SIGINT'] += which == signal.SIGINT
            counts['of pairs'] += processes == 2
            counts['with workers'] += loading
            print(counts, f'step {at}, {seconds:.1f} s', flush=True)
        if training.count('end') or at == STEPS:
            shutil.rmtree(work_dir)
            number, at = number + 1, 0
    shutil.rmtree(folder)
    print(f'the longest took {longest:.1f} s to end')
    return counts


def spoil(steps: int, pairs: float, seed: int) -> dict[str, int]:
    """Spoil so many steps, each of a training of its own.

    Args:
        steps (int): How many.
        pairs (float): The share of trainings of two processes.
        seed (int): Of the steps.
    """
    rng = random.Random(seed)
    counts = dict.fromkeys(('spoilt', *KINDS, 'stopped', 'left out', 'of pairs spoilt'), 0)
    folder = Path(tempfile.mkdtemp(prefix='spoilt-'))
    data_root = make_shapes(folder / 'shapes', num_train=8, num_val=1)
    for number in range(steps):
        kind = KINDS[number % len(KINDS)]
        skips = number // len(KINDS) % 2
        processes = 2 if rng.random() < pairs else 1
        step, process = rng.randint(1, STEPS), rng.randrange(processes)
        (folder / 'config.py').write_text(
            f"{CONFIG}\ncustom_hooks += [dict(type='Spoiling', step={step}, kind='{kind}', "
            f'process={process})]\ndefault_hooks.update(stop=dict(max_skipped={skips}))\n'
        )
        work_dir = folder / f'run{number}'
        training = Training(work_dir, data_root, processes)
        codes = training.wait()
        lines = lines_of(work_dir, processes)
        word = dict(loss='loss_ce is nan', gradient='conv_seg.weight (nan)', image='is nan')[kind]
        if kind == 'loss':
            word = 'loss_ce is inf'
        named = [x for x in lines if word in x and f'in iteration {step}, of ' in x]
        assert named and 'images/training/' in named[0], (kind, step, lines[-5:])
        if skips:
            assert codes == [0] * processes, (codes, lines[-5:])
            assert len(named) == 1 and 'left out batch 1 of at most 1' in named[0]
            weights = load_file(work_dir / f'iter_{STEPS}.pth')
            assert not list_nonfinite(weights['state_dict'].items())
        else:
            assert codes == [2] * processes, (codes, lines[-5:])
            assert len(named) == processes and named[0].startswith('error: '), named
            assert not (work_dir / f'iter_{STEPS}.pth').exists()
        counts['spoilt'] += 1
        counts[kind] += 1
        counts['left out' if skips else 'stopped'] += 1
        counts['of pairs spoilt'] += processes == 2
        print(counts, flush=True)
        shutil.rmtree(work_dir, ignore_errors=True)
    shutil.rmtree(folder)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--signals', type=int, default=100)
    parser.add_argument('--steps', type=int, default=50, help='steps that are spoilt')
    parser.add_argument('--pairs', type=float, default=0.25, help='share of two processes')
    parser.add_argument('--workers', type=float, default=0.3, help='share with loading processes')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    import mmseg.registry  # noqa: F401  once, before the forks
    from yapf.yapflib import yapf_api

    # Half of so short a training is making its config's text beautiful, five times.
    yapf_api.FormatCode = lambda text, **_: (text, False)
    counts = send(args.signals, args.pairs, args.workers, args.seed)
    counts |= spoil(args.steps, args.pairs, args.seed)
    print(', '.join(f'{count} {name}' for name, count in counts.items()))


if __name__ == '__main__':
    sys.exit(main())
