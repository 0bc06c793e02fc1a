"""Advice where the batch size is not the recipe's."""

import pytest
from mmengine.config import Config

from mmbiformer.engine.recipe import advise_batch_size, set_auto_scale_lr
from mmbiformer.errors import UserError


def config(**train_cfg) -> Config:
    return Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(optimizer=dict(lr=1e-4)),
            auto_scale_lr=dict(enable=False, base_batch_size=16),
            train_cfg=train_cfg,
        )
    )


def test_recipe_batch_needs_no_advice() -> None:
    assert advise_batch_size(config(max_epochs=12), world_size=8) is None


def test_epochs_need_another_lr_alone() -> None:
    advice = advise_batch_size(config(max_epochs=12), world_size=2)
    assert advice == (
        "the total batch is 4, the recipe's 16: lr 2.5e-05 instead of 0.0001 fits it "
        '(--auto-scale-lr)'
    )


def test_iterations_need_to_be_more_too() -> None:
    advice = advise_batch_size(config(max_iters=80000), world_size=4)
    assert 'lr 5e-05 instead of 0.0001' in advice
    assert '160000 iterations instead of 80000' in advice


def test_accumulated_batches_count() -> None:
    cfg = config(max_epochs=12)
    cfg.optim_wrapper.accumulative_counts = 8
    assert advise_batch_size(cfg, world_size=1) is None


def test_scaled_lr_leaves_the_iterations_to_say() -> None:
    cfg = config(max_iters=80000)
    set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    advice = advise_batch_size(cfg, world_size=1)
    assert '640000 iterations' in advice and 'lr' not in advice
    cfg = config(max_epochs=12)
    set_auto_scale_lr(cfg)
    assert advise_batch_size(cfg, world_size=1) is None


def test_scaling_needs_the_recipe_batch() -> None:
    cfg = config(max_epochs=12)
    cfg.pop('auto_scale_lr')
    with pytest.raises(UserError, match='base_batch_size'):
        set_auto_scale_lr(cfg)
