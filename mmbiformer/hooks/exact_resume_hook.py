"""Runs that go on as if they had never been stopped."""

import torch
from mmengine.dist import broadcast, broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import Dataset

from mmbiformer.errors import UserError
from mmbiformer.registry import HOOKS

from .numbered_batches import EndlessLoader, NumberedBatches, number_batches
from .step_seeds import seed_step

KNOWN_LOOPS = EpochBasedTrainLoop, IterBasedTrainLoop
KEY = 'exact_resume'  # of what this hook has in a checkpoint
BATCHES = 'the number of batches in an epoch'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a run that is resumed the run that was not stopped, bit for bit on a CPU.

    What is random in a step depends on the seed, the process and the number of the step, and what
    is random in an image on its place in the batch, too. So nothing that was drawn before needs to
    be known, and neither the number of loading workers nor a validation in between matters. A run
    that goes on draws the batches of an epoch that it has taken already without loading them, and
    validates again where the checkpoint was saved before a validation. Before each validation
    all processes take the buffers of the first one, which are those that a checkpoint has.

    Where a resumed run cannot be exact, a warning says so and why.

    Raises:
        UserError: If the loop is none of mmengine's two, or its loader draws no batches.
    """

    priority = 'LOWEST'  # the checkpoint hook must be ready where a run begins with a validation

    def __init__(self) -> None:
        self._resumed: dict | None = None
        self._batches: NumberedBatches | None = None
        self._seed = 0
        self._done = 0  # batches of the epoch that a resumed run begins in
        self._began = (0, 0)  # number of the present epoch, and of its first step
        self._validated_at = -1

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what a checkpoint of mmengine lacks."""
        sizes = [x._input_size for x in _list_resizers(runner)]
        # A checkpoint is saved before its validation, and again where that gave a better best.
        is_validated = checkpoint['meta']['iter'] == self._validated_at
        epoch, first = self._began
        is_within = checkpoint['meta']['epoch'] == epoch
        checkpoint[KEY] = dict(
            circumstances=_describe(runner),
            input_sizes=sizes,
            is_validated=is_validated,
            taken=checkpoint['meta']['iter'] - first if is_within else 0,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what :meth:`before_save_checkpoint` added."""
        if runner._resume:
            self._resumed = checkpoint.get(KEY, {})

    def before_train(self, runner: Runner) -> None:
        """Begin with the batch behind the last one, or with the validation that is due."""
        self._seed = _share(runner.seed)
        loop = runner.train_loop
        for what, is_known in (
            (f'a {type(loop).__name__}', isinstance(loop, KNOWN_LOOPS)),
            ('data without a batch sampler', loop.dataloader.batch_sampler is not None),
        ):
            if not is_known:
                raise UserError(
                    f'ExactResumeHook cannot go on with {what}: remove it from default_hooks'
                )
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self._batches = number_batches(
            loop.dataloader, self._seed, get_rank(), endless=not by_epoch
        )
        if not by_epoch:
            self._batches.begin(0, done=runner.iter)
            # mmengine before 0.10.12 asks for as many batches as steps are done.
            leaves_out = hasattr(loop.dataloader_iterator, 'skip_iter')
            idle = 0 if leaves_out else runner.iter
            loop.dataloader_iterator = EndlessLoader(loop.dataloader, idle)
        if self._resumed is not None:
            self._warn_of_differences(runner)
            length = len(loop.dataloader)
            if by_epoch and self._resumed.get('circumstances', {}).get(BATCHES) == length:
                self._done = self._resumed['taken']
            for resizer, size in zip(
                _list_resizers(runner), self._resumed.get('input_sizes', ()), strict=False
            ):
                resizer._input_size = size and tuple(size)
            self._validate_if_due(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Leave out the batches of this epoch that the run has taken before."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        done, self._done = self._done, 0
        self._began = runner.epoch, runner.iter - done
        self._batches.begin(runner.iter - done, done)
        if done:
            runner.logger.info(
                f'epoch {runner.epoch + 1} goes on with batch {done + 1} of {len(self._batches)}'
            )
            run_iter = loop.run_iter
            # The loop counts from 0, and logs and averages by that number.
            loop.run_iter = lambda number, batch: run_iter(done + number, batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Let the next epoch count from 0."""
        vars(runner.train_loop).pop('run_iter', None)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed what the step draws; like mmengine, all processes alike unless diff_rank_seed."""
        by_rank = runner._randomness_cfg.get('diff_rank_seed', False)
        seed_step(self._seed + by_rank * get_rank(), runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Validate what a checkpoint has: statistics of norms differ among processes."""
        averaged = [x.ema_model for x in runner.hooks if isinstance(x, EMAHook)]
        for model in [runner.model, *averaged]:
            for buffer in model.buffers():
                broadcast(buffer)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: list | None = None,
    ) -> None:
        """Note what is validated; behind the epoch the checkpoint hook would have saved."""
        if batch_idx + 1 == len(runner.val_dataloader):
            self._validated_at = runner.iter

    def _warn_of_differences(self, runner: Runner) -> None:
        if not self._resumed:
            runner.logger.warning(
                'the checkpoint was saved without ExactResumeHook: the run goes on, but not as '
                'the same one'
            )
            return
        now = _describe(runner)
        for name, before in self._resumed['circumstances'].items():
            if now[name] != before:
                runner.logger.warning(
                    f'the resumed run is not the same one: {name} was {before} and is {now[name]}'
                )
        for transform in _list_transforms(runner.train_dataloader.dataset):
            if hasattr(transform, 'results_cache'):
                runner.logger.warning(
                    f'the resumed run is not the same one: {type(transform).__name__} mixes in '
                    'images of former steps, which are lost'
                )
        count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if runner.iter % count:
            runner.logger.warning(
                f'the resumed run is not the same one: {runner.iter % count} of {count} steps of '
                'gradients that were accumulated are lost'
            )

    def _validate_if_due(self, runner: Runner) -> None:
        loop = runner.train_loop
        if self._resumed.get('is_validated'):
            return
        if isinstance(loop, EpochBasedTrainLoop):
            step, end = runner.epoch, runner.max_epochs
        else:
            step, end = runner.iter, runner.max_iters
        loop._decide_current_val_interval()
        is_due = step % loop.val_interval == 0 or step == end
        if runner.val_loop and not self._done and step and step >= loop.val_begin and is_due:
            runner.logger.info('validating first: the checkpoint is from before its validation')
            runner.val_loop.run()


def _describe(runner: Runner) -> dict[str, int]:
    """What must be the same for a run to be the same, beside its config."""
    return {
        'the number of processes': get_world_size(),
        BATCHES: len(runner.train_loop.dataloader),
        'the number of threads': torch.get_num_threads(),
    }


def _list_resizers(runner: Runner) -> list[torch.nn.Module]:
    """What resizes batches to a size that it keeps for several steps, as in YOLOX."""
    return [x for x in runner.model.modules() if hasattr(x, '_input_size')]


def _list_transforms(dataset: Dataset) -> list[object]:
    """The steps of a data set's pipeline, and of those of data sets within."""
    transforms = getattr(dataset, 'pipeline', [])
    within = [*getattr(dataset, 'datasets', []), getattr(dataset, 'dataset', None)]
    found = [*getattr(transforms, 'transforms', transforms)]
    return found + [x for inner in within if inner for x in _list_transforms(inner)]


def _share(seed: int) -> int:
    """The first process's seed, in all of them."""
    seeds = [seed]
    broadcast_object_list(seeds)
    return seeds[0]
