"""The estimate of the space that a run's checkpoints take, against what they take."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook, EMAHook
from tiny_runs import tiny_run

from mmbiformer.hooks.disk_space import count_new, optimizer_size, saves_ahead, weights_size


@pytest.mark.parametrize(
    ('optimizer', 'tensors'),
    [
        (dict(type='AdamW', lr=0.01), 3),
        (dict(type='SGD', lr=0.01, momentum=0.9), 2),
        (dict(type='SGD', lr=0.01), 1),
    ],
    ids=['AdamW', 'momentum', 'SGD'],
)
@pytest.mark.parametrize('averages', [0, 1])
def test_estimate_is_the_size_of_the_file(tmp_path, optimizer, tensors, averages):
    hooks = [dict(type='EMAHook')] * averages
    run = tiny_run(tmp_path, epochs=1, width=500, save_best=None, hooks=hooks)
    run.optim_wrapper = dict(optimizer=optimizer)
    run.train()
    assert sum(isinstance(hook, EMAHook) for hook in run.hooks) == averages
    estimate = weights_size(run) + optimizer_size(run)
    assert estimate == pytest.approx((tensors + averages) * 500 * 501 * 4, abs=10)
    assert (tmp_path / 'epoch_1.pth').stat().st_size == pytest.approx(estimate, rel=0.02)


@pytest.mark.parametrize(
    ('keep', 'best', 'saves', 'kept', 'expected'),
    [
        (3, None, 12, 0, 4),
        (3, None, 12, 3, 1),
        (3, None, 12, 2, 2),
        (3, None, 3, 0, 3),
        (3, 'acc', 3, 0, 4),
        (-1, None, 12, 0, 12),
        (-1, 'acc', 12, 5, 13),
        (3, 'acc', 0, 3, 0),
    ],
)
def test_checkpoints_at_a_time(keep, best, saves, kept, expected):
    hook = CheckpointHook(max_keep_ckpts=keep, save_best=best, rule='greater')
    assert count_new(hook, saves, kept) == expected


@pytest.mark.parametrize(
    ('options', 'done', 'expected'),
    [
        (dict(interval=1), 0, 12),
        (dict(interval=1), 5, 7),
        (dict(interval=5), 0, 3),
        (dict(interval=5, save_last=False), 0, 2),
        (dict(interval=4), 4, 2),
        (dict(interval=4, save_begin=2), 0, 3),
        (dict(), 0, 1),
        (dict(), 12, 0),
        (dict(interval=1000, by_epoch=False), 0, 10),
    ],
)
def test_saves_ahead(options, done, expected):
    run = SimpleNamespace(epoch=done, max_epochs=12, iter=done, max_iters=10000)
    assert saves_ahead(CheckpointHook(**options), run) == expected
