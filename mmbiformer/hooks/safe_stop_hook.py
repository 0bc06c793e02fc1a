"""Runs that stop in time: at values that are not finite, and at SIGTERM and SIGINT."""

import functools
import math
from collections.abc import Callable
from contextlib import ExitStack

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from mmbiformer import stopping
from mmbiformer.errors import UserError
from mmbiformer.registry import HOOKS
from mmbiformer.stopping import Stopped

from .checkpoint_hook import CrashSafeCheckpointHook
from .nonfinite import Batch, any_nonfinite, find_nonfinite, paths_in

COUNT = 'skipped_batches'


@HOOKS.register_module()
class SafeStopHook(Hook):
    """Ends a run before it is spoilt, and saves one that is told to end.

    Before each step of the optimizer it looks at the losses and gradients. If one is not finite
    the run ends with one line that names it, the iteration and the images, or leaves the batch
    out. Under AMP the gradients are the business of the ``GradScaler``, which skips a step where
    they overflow; the losses are looked at.

    At SIGTERM or SIGINT the iteration is finished, a checkpoint saved, and the program ended with
    128 and the signal's number; a validation is broken off. Processes of one run agree on both,
    by one number each that they exchange before a step.

    mmengine has no place for a hook between backward and step: while a run trains this one takes
    the place of the ``step`` of its optimizer wrappers, and of the ``run`` of its validation.

    Args:
        max_skipped (int): How many batches the run may leave out, resumed or not. A batch that is
            left out changes neither weights nor buffers. Where gradients are accumulated, all
            batches of the step are left out and count as one. Defaults to 0.

    Raises:
        UserError: If ``max_skipped`` is no number of batches.
    """

    # The first at each point: a run then has taken all that belongs to what was before.
    priority = 'HIGHEST'

    def __init__(self, max_skipped: int = 0) -> None:
        if type(max_skipped) is not int or max_skipped < 0:
            raise UserError(
                f'SafeStopHook: max_skipped={max_skipped!r} must be a number of batches, 0: none'
            )
        self.max_skipped = max_skipped
        self.is_training = False
        self.agreed = 0
        self.batches: list[Batch] = []
        self.buffers: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Take the places that mmengine has no hooks for, until the training ends."""
        savers = [x for x in runner.hooks if isinstance(x, CrashSafeCheckpointHook)]
        if not savers:
            raise UserError(
                'SafeStopHook saves by another hook: set default_hooks.checkpoint.type to '
                "'mmbiformer.CrashSafeCheckpointHook'"
            )
        self.saver = savers[0]
        wrapped = is_model_wrapper(runner.model)
        self.model = runner.model.module if wrapped else runner.model
        self.device = next(self.model.parameters()).device
        wrapper = runner.optim_wrapper
        is_dict = isinstance(wrapper, OptimWrapperDict)
        self.wrappers = [*wrapper.optim_wrappers.values()] if is_dict else [wrapper]
        self.places = ExitStack()
        self.places.callback(self.model.register_forward_hook(self._note_losses).remove)
        for wrapper in self.wrappers:
            self._replace(wrapper, 'step', functools.partial(self._step, runner, wrapper))
        loops = [runner.train_loop, runner.val_loop]
        for loader in [loop.dataloader for loop in loops if loop is not None]:
            loader.worker_init_fn = stopping.shield_worker(loader.worker_init_fn)
        if runner.val_loop is not None:
            self._replace(runner.val_loop, 'run', functools.partial(self._validate, runner))
        self.places.enter_context(stopping.listening())
        self.is_training = True
        stopping.hold()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Stop here if that was asked for; the iterations before this one are complete."""
        is_complete = all(x.should_update() for x in self.wrappers)
        number = self.agreed if get_world_size() > 1 else stopping.requested()
        if number and is_complete:
            self._stop(runner, number)
        if is_complete:
            self.batches.clear()
            self._note_buffers()
        self.batches.append(Batch(runner.iter + 1, paths_in(data_batch)))

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """A validation may be broken off once averaged weights are in place."""
        if self.is_training:
            stopping.release()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """No more; what follows puts the weights back, and saves the best."""
        if self.is_training:
            stopping.hold()

    def after_train(self, runner: Runner) -> None:
        """Give the places back. A signal that came too late to save anything is said."""
        if number := stopping.requested():
            name = Stopped(number).name
            runner.logger.warning(f'{name} came after the last step: the run is complete')
            stopping.forget()
        self.is_training = False
        self.places.close()
        stopping.release()

    def _replace(self, owner: object, name: str, function: Callable) -> None:
        """Have a function called instead of a method, which becomes its first argument."""
        method = getattr(owner, name)
        # mmengine's schedulers leave a mark on the `step` that they have seen.
        replaced = functools.update_wrapper(functools.partial(function, method), method)
        self.places.callback(setattr, owner, name, method)
        setattr(owner, name, replaced)

    def _note_losses(self, model: object, args: object, outputs: object) -> None:
        if self.batches and torch.is_grad_enabled():
            self.batches[-1].note(outputs)

    def _step(self, runner: Runner, wrapper: OptimWrapper, step: Callable, **kwargs) -> None:
        """Step, unless something is not finite: then end the run or leave the batch out."""
        scaler = getattr(wrapper, 'loss_scaler', None)
        parameters = [x for group in wrapper.optimizer.param_groups for x in group['params']]
        gradients = [x.grad for x in parameters if x.grad is not None and x.grad.numel()]
        look = functools.partial(
            any_nonfinite, self.batches, [] if scaler else gradients, self.device
        )
        # The exact look takes seven times as long on a CPU, 2 % of a step.
        is_bad = self._exchange(look(2)) and self._exchange(look(math.inf))
        # Below 1 it is not the scale that the gradients overflow by. The device is idle now, and
        # the question costs no wait.
        if is_bad or (scaler is not None and scaler.get_scale() < 1):
            self._leave_out(runner)
        else:
            step(**kwargs)

    def _exchange(self, is_bad: Tensor) -> bool:
        """Whether any process has found something, and which signal any got: one wait a step."""
        if get_world_size() == 1:
            return bool(is_bad)
        both = torch.stack((is_bad, torch.full_like(is_bad, stopping.requested())))
        all_reduce(both, 'max')
        is_bad, self.agreed = (int(x) for x in both.tolist())
        return bool(is_bad)

    def _leave_out(self, runner: Runner) -> None:
        """Leave a batch out or raise UserError; all processes do alike."""
        fault = find_nonfinite(self.batches, self.model)
        count = runner.message_hub.get_info(COUNT, 0)
        if count == self.max_skipped:
            rates = [rate for group in runner.optim_wrapper.get_lr().values() for rate in group]
            raise UserError(
                f'{fault}: stopped before the step of the optimizer. Lower the learning rate, '
                f'{max(rates):g} now, or look at these images and their annotations; '
                f'default_hooks.stop.max_skipped={self.max_skipped} says how many batches the run '
                'may leave out'
            )
        runner.message_hub.update_info(COUNT, count + 1)
        buffers = dict(self.model.named_buffers())
        for name, noted in self.buffers.items():
            buffers[name].copy_(noted)
        runner.logger.warning(f'left out batch {count + 1} of at most {self.max_skipped}: {fault}')

    def _note_buffers(self) -> None:
        """Keep what a batch that is left out may have changed, as the statistics of BatchNorm."""
        if self.max_skipped:
            self.buffers = {name: x.clone() for name, x in self.model.named_buffers()}

    def _validate(self, runner: Runner, run: Callable[[], dict]) -> dict:
        try:
            return run()
        except Stopped as stop:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # takes the averaged weights out again
            self._stop(runner, stop.number, alone=True)

    def _stop(self, runner: Runner, number: int, alone: bool = False) -> None:
        """Save where the run is, say so, and end.

        Args:
            runner (Runner): Between two iterations.
            number (int): Of the signal.
            alone (bool): Whether other processes may be elsewhere.
        """
        stop = Stopped(number, is_said=True)
        path = self.saver.save_stopped(runner)
        if not alone:
            barrier()  # a launcher ends all processes as soon as one has ended
        runner.logger.warning(
            f"stopped by {stop.name} after iteration {runner.iter}: saved in '{path}', from which "
            '--resume goes on'
        )
        runner.visualizer.close()
        raise stop
