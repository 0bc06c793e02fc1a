"""Checkpoints that survive a kill, a full disk and the end of the machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmbiformer.checkpoints import find_newest, remove_checkpoint, write_checkpoint
from mmbiformer.errors import UserError
from mmbiformer.files import remove_unfinished, whole_or_absent
from mmbiformer.registry import HOOKS

from .disk_space import check_space

BACKEND = 'mmbiformer_checkpoints'
FEWEST = 2
# Where a run stopped between two of its checkpoints: iterations finished.
STOPPED = 'stopped_iter_{}.pth'


@register_backend(BACKEND)
class CheckpointBackend(LocalBackend):
    """mmengine's files on local disks, where checkpoints are written whole and with a manifest."""

    def __init__(self) -> None:
        self._postponed: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint; the old one of this name stays until the new one is safe."""
        write_checkpoint(obj, filepath)

    def remove(self, filepath: str | Path) -> None:
        """Remove a checkpoint and its manifest, or note it where removing is postponed."""
        if self._postponed is None:
            remove_checkpoint(filepath)
        else:
            self._postponed.append(str(filepath))

    @contextmanager
    def postpone_removing(self) -> Iterator[list[str]]:
        """What is removed within the block stays; its names are in the list that this gives."""
        self._postponed = []
        try:
            yield self._postponed
        finally:
            self._postponed = None


@HOOKS.register_module()
class CrashSafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` for runs that may be killed at any moment.

    A checkpoint is written beside its place, forced to the disk and renamed, and has its SHA-256
    in a file beside it, for ``sha256sum -c``. Old ones go after the new one is safe, and two are
    always kept. `last_checkpoint` and the best checkpoint are whole or the former ones. Before
    the first step the hook checks that the disk has space. Where the config resumes without naming
    a file, it takes the newest checkpoint that verifies, or ends the run.

    Args:
        max_keep_ckpts (int): How many to keep, at least two. Defaults to -1, all.
        out_dir (str | Path, optional): As in mmengine, but only a local folder.
        **kwargs: As in mmengine, but for ``backend_args`` and ``file_client_args``.

    Raises:
        UserError: If checkpoints are to go elsewhere than to a local folder.
    """

    def __init__(
        self, *, max_keep_ckpts: int = -1, out_dir: str | Path | None = None, **kwargs
    ) -> None:
        elsewhere = {'backend_args', 'file_client_args'} & kwargs.keys()
        if elsewhere or '://' in str(out_dir):
            where = ', '.join(elsewhere) or f"out_dir='{out_dir}'"
            raise UserError(
                f'CrashSafeCheckpointHook writes to local folders, not by {where}: '
                "use type='CheckpointHook'"
            )
        if 0 < max_keep_ckpts < FEWEST:
            text = 'max_keep_ckpts=%d becomes %d: one fault must not take the only checkpoint'
            print_log(text % (max_keep_ckpts, FEWEST), 'current', logging.WARNING)
            max_keep_ckpts = FEWEST
        super().__init__(
            max_keep_ckpts=max_keep_ckpts,
            out_dir=out_dir,
            backend_args=dict(backend=BACKEND),
            **kwargs,
        )
        self._saved: tuple[int, int] | None = None  # epochs and iterations of the last one

    def before_run(self, runner: Runner) -> None:
        """Choose what to resume from; mmengine would take the last one unseen, or start afresh."""
        # Only these private names tell it: the config's keys are read when the runner is built.
        if runner._resume and runner._load_from is None:
            folder = self._folder(runner)
            newest, passed_over = find_newest(folder)
            for reason in passed_over:
                runner.logger.warning(f'passed over: {reason}')
            runner.logger.info(f"resuming from '{newest}'")
            runner._load_from = str(newest)

    def before_train(self, runner: Runner) -> None:
        """Clear up after a run that was killed, and check the space on the disk."""
        super().before_train(runner)
        # Where a resumed run begins with a validation, mmengine would not save its checkpoint
        # again to name the new best in it.
        self.last_ckpt = runner.message_hub.get_info('last_ckpt', self.last_ckpt)
        problem = [None]
        if is_main_process():
            saved = [f'{x.format("*")}*' for x in (self.filename_tmpl, STOPPED)]
            for names in (*saved, 'best_*.pth*', 'last_checkpoint'):
                for folder in {str(self.out_dir), runner.work_dir}:
                    remove_unfinished(folder, names)
            try:
                check_space(self, runner)
            except UserError as error:
                problem = [str(error)]
        broadcast_object_list(problem)  # else the other processes would wait for this one
        if problem[0]:
            raise UserError(problem[0])

    def save_stopped(self, runner: Runner) -> Path:
        """Save where a run stops, between two iterations, unless that is saved already.

        The checkpoint is not one of those that are kept: it goes when the next one is safe.

        Args:
            runner (Runner): With as many epochs and iterations as are finished.

        Returns:
            Path: The checkpoint that a run goes on from here with.

        Raises:
            UserError: If the disk is full.
        """
        finished = (runner.epoch, runner.iter)
        if self._saved == finished and self.save_optimizer and self.save_param_scheduler:
            return Path(self.last_ckpt)
        name = STOPPED.format(runner.iter)
        path = Path(self.out_dir, name)
        with _whole_last_checkpoint(runner) as writer:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            runner.save_checkpoint(self.out_dir, name, meta=meta, backend_args=self.backend_args)
            if is_main_process():
                Path(writer.work_dir, 'last_checkpoint').write_text(str(path))
        return path

    def _folder(self, runner: Runner) -> Path:
        """Where the checkpoints of a run are; mmengine knows it only when training begins."""
        work_dir = Path(runner.work_dir)
        return Path(self.out_dir, work_dir.name) if self.out_dir else work_dir

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, then remove the oldest, which mmengine does before, and those of stops."""
        keep, hub = self.max_keep_ckpts, runner.message_hub
        steps = [x for x in hub.get_info('keep_ckpt_ids', []) if x != step] + [step]
        if keep > 0:
            # It goes into the checkpoint with the oldest, which a resumed run removes if this one
            # is killed before.
            hub.update_info('keep_ckpt_ids', steps)
        self.max_keep_ckpts = -1
        try:
            with _whole_last_checkpoint(runner) as writer:
                super()._save_checkpoint_with_step(writer, step, meta)
        finally:
            self.max_keep_ckpts = keep
        if keep > 0:
            hub.update_info('keep_ckpt_ids', steps[-keep:])
            for outdated in steps[:-keep]:
                self._remove(Path(self.out_dir, self.filename_tmpl.format(outdated)))
        for path in Path(self.out_dir).glob(STOPPED.format('*')):
            if int(path.stem.rpartition('_')[2]) <= meta['iter']:
                self._remove(path)
        self._saved = (meta['epoch'], meta['iter'])

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best, and remove the former best afterwards; mmengine does so before."""
        with self.file_backend.postpone_removing() as former:
            super()._save_best_checkpoint(runner, metrics)
        info = runner.message_hub.runtime_info
        current = {path for key, path in info.items() if key.startswith('best_ckpt')}
        for path in set(former) - current:
            self._remove(Path(path))

    def _remove(self, path: Path) -> None:
        if is_main_process() and path.is_file():
            remove_checkpoint(path)


@contextmanager
def _whole_last_checkpoint(runner: Runner) -> Iterator['Runner | _InScratch']:
    """Let mmengine write `last_checkpoint` to a scratch folder, from which it is moved whole."""
    if not is_main_process():
        yield runner
        return
    with whole_or_absent(Path(runner.work_dir, 'last_checkpoint')) as unfinished:
        yield _InScratch(runner, str(unfinished.parent))


class _InScratch:
    """A runner with another work dir."""

    def __init__(self, runner: Runner, work_dir: str) -> None:
        self._runner, self.work_dir = runner, work_dir

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)
