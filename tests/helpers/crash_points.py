"""Kill a run before each of its operations on files, one after the other."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.hooks import Hook

# What Python reports before it does it; an operation's first argument is a path.
OPERATIONS = {'open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'shutil.rmtree'}


class CrashPoints(Hook):
    """From the end of an epoch on, run the rest again and again, each time killed one step later.

    Args:
        work_dir (Path): Folder of the run; operations outside it do not count.
        epoch (int): The epoch behind which the kills begin, before its checkpoint is written.
        check (Callable): Called with the number of a kill when the folder is as it left it.
        every (int): How many operations to go on from one kill to the next.
    """

    priority = 'HIGH'

    def __init__(
        self, work_dir: Path, epoch: int, check: Callable[[int], None], every: int = 1
    ) -> None:
        self.work_dir, self.epoch, self.check, self.every = work_dir, epoch, check, every
        self.kills = 0
        self.is_fork = False

    def after_train_epoch(self, runner) -> None:
        if runner.epoch + 1 != self.epoch:
            return
        before = self.work_dir.with_name('before')
        shutil.copytree(self.work_dir, before)
        gc.freeze()  # a collection in the other process would copy what the two share
        while True:
            child = os.fork()
            if child == 0:
                gc.disable()
                self.is_fork = True
                kill_before(self.every * self.kills + 1, self.work_dir)
                return  # to the hooks behind this one, as if nothing had been
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0
                gc.unfreeze()
                return
            self.kills += 1
            self.check(self.kills)
            shutil.rmtree(self.work_dir)
            shutil.copytree(before, self.work_dir)

    def after_train(self, runner) -> None:
        if self.is_fork:
            os._exit(0)


def kill_before(number: int, folder: Path) -> None:
    """Kill this process before its so manieth operation on files of a folder, logs apart."""
    left = [number]

    def on_event(event: str, arguments: tuple) -> None:
        if event not in OPERATIONS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(arguments[0])
        if folder not in (path.parent, *path.parents[1:2]) or path.suffix in ('.log', '.json'):
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
