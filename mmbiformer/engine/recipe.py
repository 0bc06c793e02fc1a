"""What a batch size other than the recipe's asks for."""

from mmengine.config import Config

from mmbiformer.errors import UserError


def set_auto_scale_lr(cfg: Config) -> None:
    """Let mmengine scale the learning rate linearly with the total batch size.

    Raises:
        UserError: If the config does not say which batch size its learning rate is for.
    """
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate is for: set '
            'auto_scale_lr = dict(base_batch_size=...) in the config'
        )
    cfg.auto_scale_lr.enable = True


def advise_batch_size(cfg: Config, world_size: int) -> str | None:
    """What would keep the recipe where the total batch differs from the one it was made for.

    Returns one line with the learning rate that would fit and, for a schedule counted in
    iterations, the number of them; None where there is nothing to say.
    """
    scaling = cfg.get('auto_scale_lr', {})
    base = scaling.get('base_batch_size')
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    total = cfg.train_dataloader.get('batch_size', 0) * world_size * accumulated
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr')
    if not base or not total or not lr or total == base:
        return None
    advice = []
    if not scaling.get('enable'):
        advice.append(f'lr {lr * total / base:.4g} instead of {lr:g} fits it (--auto-scale-lr)')
    if iterations := cfg.train_cfg.get('max_iters'):
        advice.append(
            f'{round(iterations * base / total)} iterations instead of {iterations} see as many '
            'images (train_cfg.max_iters and the end of param_scheduler)'
        )
    if not advice:
        return None
    return f"the total batch is {total}, the recipe's {base}: {'; '.join(advice)}"
