"""Does the disk have space for the checkpoints of a run? Estimated before its first step."""

import shutil
from pathlib import Path

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner
from torch.optim import Optimizer

from mmbiformer.checkpoints import megabytes
from mmbiformer.errors import UserError


def check_space(hook: CheckpointHook, runner: Runner) -> None:
    """Refuse a run whose checkpoints do not fit beside each other: raises UserError."""
    weights = weights_size(runner)
    size = weights + (optimizer_size(runner) if hook.save_optimizer else 0)
    kept = runner.message_hub.get_info('keep_ckpt_ids', [])
    count = count_new(hook, saves_ahead(hook, runner), len(kept))
    best = len(hook.save_best or [])
    needed = count * size + best * weights
    folder = Path(hook.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        and_best = f' and {best} best of {megabytes(weights)}' if best else ''
        raise UserError(
            f"the checkpoints of this run do not fit into '{folder}': {count} of "
            f'{megabytes(size)}{and_best} are there at a time, {megabytes(needed)}, and '
            f'{megabytes(free)} are free: free space, choose another --work-dir, or keep fewer by '
            'default_hooks.checkpoint.max_keep_ckpts'
        )


def count_new(hook: CheckpointHook, saves: int, kept: int) -> int:
    """How many more checkpoints there are at a time, the one that is being written included.

    Args:
        hook (CheckpointHook): Says how many are kept.
        saves (int): How often the run will save.
        kept (int): How many of its checkpoints are there already.
    """
    room = saves if hook.max_keep_ckpts < 1 else max(hook.max_keep_ckpts - kept, 0)
    # One is there twice while it is replaced: the oldest by the newest, or where the best is saved
    # by itself, which mmengine saves again after an evaluation.
    twice = saves > room or (saves > 0 and bool(hook.save_best))
    return min(saves, room) + twice


def saves_ahead(hook: CheckpointHook, runner: Runner) -> int:
    """How many steps of the run are still to be saved."""
    if hook.by_epoch:
        done, end = runner.epoch, runner.max_epochs
    else:
        done, end = runner.iter, runner.max_iters
    begin, interval = hook.save_begin, hook.interval
    steps = range(begin + interval, end + 1, interval) if interval > 0 else range(0)
    saves = sum(step > done for step in steps)
    return saves + (hook.save_last and end > done and end not in steps)


def weights_size(runner: Runner) -> int:
    """Bytes of the model in a checkpoint, with each average of it."""
    averages = sum(isinstance(hook, EMAHook) for hook in runner.hooks)
    tensors = runner.model.state_dict().values()
    return (1 + averages) * sum(x.numel() * x.element_size() for x in tensors)


def optimizer_size(runner: Runner) -> int:
    """Bytes of the optimizers' state in a checkpoint, which they make at their first step."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if hasattr(wrapper, 'values') else [wrapper]
    return sum(_state_size(wrapper.optimizer) for wrapper in wrappers)


def _state_size(optimizer: Optimizer) -> int:
    parameters = [x for group in optimizer.param_groups for x in group['params']]
    size = sum(x.numel() * x.element_size() for x in parameters if x.requires_grad)
    if 'betas' in optimizer.defaults:  # Adam and its kin: two averages of the gradients
        return 2 * size
    return 0 if optimizer.defaults.get('momentum') == 0 else size
