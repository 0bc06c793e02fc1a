"""Runs that stop in time: at values that are not finite, and at signals."""

import functools
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from tiny_runs import Growing, tiny_run

from mmbiformer import stopping
from mmbiformer.checkpoints import find_damage, find_newest
from mmbiformer.errors import UserError
from mmbiformer.hooks import SafeStopHook
from mmbiformer.stopping import Stopped

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class At(Hook):
    """Calls a function at a point of the run, and keeps weights and buffers of before.

    Args:
        point (str): A method of hooks.
        iterations (Collection[int]): Finished so far, when it is called.
        function (Callable): Takes the runner and what the point gives.
    """

    def __init__(self, point, iterations, function) -> None:
        self.iterations, self.function, self.before = iterations, function, {}
        setattr(self, point, self.call)

    def call(self, runner, **given) -> None:
        if runner.iter in self.iterations:
            state = runner.model.state_dict()
            self.before.setdefault(runner.iter, {k: x.clone() for k, x in state.items()})
            self.function(runner, **given)


def spoil_image(runner, data_batch, **_) -> None:
    data_batch['inputs'][0][1] = math.nan


def spoil_output(runner, **_) -> None:
    def spoil(module, given, output):
        handle.remove()
        return output * math.inf

    handle = runner.model.linear.register_forward_hook(spoil)


def spoil_loss(runner, **_) -> None:
    """The gradients stay as they are."""

    def forward(*args, **options):
        del runner.model.forward
        return {name: x + math.inf for name, x in runner.model.forward(*args, **options).items()}

    runner.model.forward = forward


def spoil_gradient(runner, value=math.nan, **_) -> None:
    def spoil(gradient):
        handle.remove()
        return torch.full_like(gradient, value)

    handle = runner.model.linear.bias.register_hook(spoil)


SPOILT = {
    'image': (spoil_image, 'loss is nan'),
    'output': (spoil_output, 'loss is inf'),
    'loss': (spoil_loss, 'loss is inf'),
    'gradient': (spoil_gradient, r'the gradient of linear\.bias \(nan\) is not finite'),
    'infinite gradient': (
        functools.partial(spoil_gradient, value=-math.inf),
        r'the gradient of linear\.bias \(inf\) is not finite',
    ),
}


@pytest.fixture
def work_dir(tmp_path):
    Growing.count = 0
    with stopping.listening():  # for what a run that is broken off leaves behind
        yield tmp_path / 'run'


def send(number: int):
    return lambda runner, **_: os.kill(os.getpid(), number)


def equal(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(state[x].equal(other[x]) for x in state)


def names(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.glob('*.pth') if not x.name.startswith('best'))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize('kind', SPOILT)
@pytest.mark.parametrize('iteration', [0, 3])
def test_the_run_ends_before_the_step(work_dir, kind, iteration):
    function, what = SPOILT[kind]
    at = At('before_train_iter', [iteration], function)
    run = tiny_run(work_dir, hooks=[at], stop={})
    images = r"'0\.jpg', '1\.jpg'" if iteration == 0 else r"'2\.jpg', '3\.jpg'"
    line = (
        rf'^{what} in iteration {iteration + 1}, of {images}: stopped before the step .* 0\.01 n'
    )
    with pytest.raises(UserError, match=line):
        run.train()
    assert run.iter == iteration
    assert equal(run.model.state_dict(), at.before[iteration])


@pytest.mark.parametrize('kind', SPOILT)
def test_so_many_batches_are_left_out(work_dir, monkeypatch, kind):
    at = At('before_train_iter', [1, 2, 4], SPOILT[kind][0])
    after = At('after_train_iter', [1, 2], lambda *_, **__: None)
    run = tiny_run(work_dir, hooks=[at, after], stop=dict(max_skipped=2))
    said = []
    monkeypatch.setattr(run.logger, 'warning', said.append)
    run.model.linear.register_buffer('steps', torch.zeros(()))

    def count(*_):
        run.model.linear.steps += 1

    run.model.linear.register_forward_hook(count)
    with pytest.raises(UserError, match='max_skipped=2 says how many'):
        run.train()
    assert run.iter == 4
    for iteration in (1, 2):  # neither weights nor buffers have changed
        assert equal(at.before[iteration], after.before[iteration])
    assert at.before[1]['linear.steps'] == 1
    left_out = [x for x in said if 'left out' in x]
    assert [x[:31] for x in left_out] == [
        f'left out batch {i} of at most 2: '[:31] for i in (1, 2)
    ]


def test_the_count_goes_on_with_the_run(work_dir):
    at = At('before_train_iter', [1, 5], spoil_loss)
    tiny_run(work_dir, epochs=2, hooks=[at], stop=dict(max_skipped=1)).train()
    run = tiny_run(work_dir, epochs=3, hooks=[at], stop=dict(max_skipped=1), resume=True)
    with pytest.raises(UserError, match='loss is inf in iteration 6'):
        run.train()


@pytest.mark.parametrize('value', [-1, 1.5, True, '1'])
def test_what_is_no_number_of_batches_is_refused(value):
    with pytest.raises(UserError, match=r'max_skipped=.* must be a number of batches'):
        SafeStopHook(max_skipped=value)


def test_large_gradients_are_finite(work_dir):
    """Their norm is not, in float32."""
    at = At('before_train_iter', [1], functools.partial(spoil_gradient, value=1e30))
    run = tiny_run(work_dir, epochs=1, hooks=[at], stop={})
    run.train()
    assert run.iter == 2


@pytest.mark.parametrize('skips', [0, 1])
def test_accumulated_gradients(work_dir, skips):
    """The first of two batches is named, and the step of both is left out."""
    at = At('before_train_iter', [2], spoil_output)
    end = At('before_train_iter', [2, 4], lambda *_, **__: None)
    run = tiny_run(work_dir, hooks=[at, end], stop=dict(max_skipped=skips))
    run.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)
    if skips:
        run.train()
        assert equal(end.before[2], end.before[4])
        assert not equal(end.before[4], run.model.state_dict())
        return
    with pytest.raises(UserError, match=r"loss is inf in iteration 3, of '0\.jpg', '1\.jpg'"):
        run.train()
    assert run.iter == 3
    assert equal(run.model.state_dict(), at.before[2])


@pytest.fixture
def amp(monkeypatch):
    """mmengine's AMP, by the GradScaler that torch has for CPUs."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    return dict(
        type=AmpOptimWrapper, dtype='bfloat16', optimizer=dict(type='SGD', lr=0.1),
        loss_scale=dict(init_scale=2.0**10),
    )  # fmt: skip


def test_amp_skips_steps_of_its_own(work_dir, amp):
    at = At('before_train_iter', [1, 2, 4], spoil_gradient)
    after = At('after_train_iter', [1, 2], lambda *_, **__: None)
    run = tiny_run(work_dir, hooks=[at, after], stop={})
    run.optim_wrapper = amp
    run.train()
    assert run.optim_wrapper.loss_scaler.get_scale() == 2.0**7
    assert equal(at.before[1], after.before[1])
    assert not equal(at.before[1], run.model.state_dict())


@pytest.mark.parametrize('kind', ['image', 'output', 'loss'])
def test_amp_stops_at_a_loss(work_dir, amp, kind):
    function, what = SPOILT[kind]
    run = tiny_run(work_dir, hooks=[At('before_train_iter', [3], function)], stop={})
    run.optim_wrapper = amp
    with pytest.raises(UserError, match=f'^{what} in iteration 4'):
        run.train()
    assert run.optim_wrapper.loss_scaler.get_scale() == 2.0**10


def test_amp_stops_where_no_scale_helps(work_dir, amp):
    """Else it would skip all further steps without a word."""
    at = At('before_train_iter', range(40), spoil_gradient)
    run = tiny_run(work_dir, epochs=20, hooks=[at], stop={})
    run.optim_wrapper = amp
    with pytest.raises(UserError, match=r'linear\.bias \(nan\) is not finite in iteration 12'):
        run.train()


def test_it_saves_by_the_other_hook(work_dir):
    run = tiny_run(work_dir, stop={}, type='CheckpointHook')
    with pytest.raises(UserError, match='CrashSafeCheckpointHook'):
        run.train()


def test_nothing_of_it_stays_behind(tmp_path, recwarn):
    before = [signal.getsignal(x) for x in CODES]
    run = tiny_run(tmp_path, epochs=1, stop={})
    run.param_schedulers = [dict(type='ConstantLR', by_epoch=False)]  # it counts the steps
    run.train()
    assert [signal.getsignal(x) for x in CODES] == before
    for method in (run.optim_wrapper.step, run.val_loop.run):
        assert not isinstance(method, functools.partial)
    assert not run.model._forward_hooks
    assert not [x for x in recwarn if 'optimizer.step()' in str(x.message)]


@pytest.mark.parametrize('number', CODES)
@pytest.mark.parametrize('point', ['before_train_iter', 'after_train_iter'])
def test_a_signal_within_an_epoch(work_dir, monkeypatch, number, point):
    """The iteration is finished, and what comes next goes on from there."""
    told = At(point, [2], send(number))
    run = tiny_run(work_dir, hooks=[told], stop={}, max_keep_ckpts=2)
    said = []
    monkeypatch.setattr(run.logger, 'warning', said.append)
    with pytest.raises(Stopped) as stop:
        run.train()
    assert stop.value.code == CODES[number] and stop.value.is_said
    path = work_dir / 'stopped_iter_3.pth'
    line = f"stopped by {number.name} after iteration 3: saved in '{path}', from which --resume"
    assert [x for x in said if line in x]
    assert names(work_dir) == ['epoch_1.pth', 'stopped_iter_3.pth']
    content = load(path)
    assert (content['meta']['epoch'], content['meta']['iter']) == (1, 3)
    assert equal(content['state_dict'], run.model.state_dict())
    assert content['message_hub']['runtime_info']['keep_ckpt_ids'] == [1]
    assert find_damage(path) is None and find_newest(work_dir) == (path, [])
    assert (work_dir / 'last_checkpoint').read_text() == str(path)

    stopping.forget()
    follower = tiny_run(work_dir, stop={}, resume=True)
    first = At('before_train_iter', range(9), lambda *_, **__: None)
    follower.register_hook(first)
    follower.train()
    assert min(first.before) == 3
    assert equal(first.before[3], content['state_dict'])
    assert names(work_dir) == ['epoch_2.pth', 'epoch_3.pth']
    assert not [x for x in work_dir.iterdir() if 'stopped' in x.name]


def test_it_goes_when_a_later_one_is_safe_and_not_before(work_dir):
    """Nor where a run goes on from an older one."""
    with pytest.raises(Stopped):
        tiny_run(work_dir, hooks=[At('before_train_iter', [4], send(15))], stop={}).train()
    assert names(work_dir) == ['epoch_1.pth', 'epoch_2.pth', 'stopped_iter_5.pth']
    stopping.forget()
    run = tiny_run(work_dir, epochs=2, stop={}, resume=True)
    run._load_from = str(work_dir / 'epoch_1.pth')
    run.train()
    assert names(work_dir) == ['epoch_1.pth', 'epoch_2.pth', 'stopped_iter_5.pth']
    run = tiny_run(work_dir, stop={}, resume=True)
    run._load_from = str(work_dir / 'epoch_2.pth')
    run.train()
    assert names(work_dir) == ['epoch_2.pth', 'epoch_3.pth']


def test_before_the_first_step(work_dir):
    with pytest.raises(Stopped):
        tiny_run(work_dir, hooks=[At('before_train_epoch', [0], send(15))], stop={}).train()
    assert names(work_dir) == ['stopped_iter_0.pth']
    stopping.forget()
    tiny_run(work_dir, stop={}, resume=True).train()
    assert names(work_dir) == ['epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize('point', ['after_train_epoch', 'before_save_checkpoint'])
def test_what_a_save_has_is_not_saved_again(work_dir, point):
    at = At(point, [4], send(15))
    with pytest.raises(Stopped):
        tiny_run(work_dir, hooks=[at], stop={}, save_best=None).train()
    assert names(work_dir) == ['epoch_1.pth', 'epoch_2.pth']
    assert load(work_dir / 'epoch_2.pth')['meta']['iter'] == 4


@pytest.mark.parametrize('point', ['before_val_iter', 'after_val_iter', 'before_val_epoch'])
@pytest.mark.parametrize('interval', [1, 5], ids=['saved', 'not saved'])
def test_a_validation_is_broken_off(work_dir, point, interval):
    """With averaged weights in place, which are not those that the run goes on with."""
    run = tiny_run(
        work_dir, hooks=[dict(type='EMAHook', momentum=0.5)], stop={}, interval=interval
    )
    at = At(point, [4], send(15))
    run.register_hook(at)
    end = At('after_train_epoch', [4], lambda *_, **__: None)
    run.register_hook(end)
    with pytest.raises(Stopped):
        run.train()
    path = work_dir / ('epoch_2.pth' if interval == 1 else 'stopped_iter_4.pth')
    assert find_newest(work_dir) == (path, [])
    content = load(path)
    assert (content['meta']['epoch'], content['meta']['iter']) == (2, 4)
    assert equal(run.model.state_dict(), end.before[4])
    averages = content['ema_state_dict']
    # In a file the two stand in each other's place, as mmengine saves them.
    assert equal({k[7:]: x for k, x in averages.items() if k[:7] == 'module.'}, end.before[4])
    assert not equal(content['state_dict'], end.before[4])
    (ema,) = [x for x in run.hooks if isinstance(x, EMAHook)]
    assert equal(content['state_dict'], ema.ema_model.module.state_dict())


def test_after_the_last_step_the_run_is_complete(work_dir, monkeypatch):
    run = tiny_run(work_dir, epochs=1, hooks=[At('after_val_epoch', [2], send(15))], stop={})
    said = []
    monkeypatch.setattr(run.logger, 'warning', said.append)
    run.train()
    assert [x for x in said if 'SIGTERM came after the last step: the run is complete' in x]
    assert names(work_dir) == ['epoch_1.pth']
    assert not stopping.requested()


@pytest.mark.parametrize(('told', 'stops'), [(2, 3), (3, 6), (5, 6)])
def test_a_signal_between_accumulated_gradients(work_dir, told, stops):
    """The run stops behind the step that they are for."""
    run = tiny_run(work_dir, epochs=9, hooks=[At('before_train_iter', [told], send(15))], stop={})
    run._train_loop['val_interval'] = 9
    run.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    with pytest.raises(Stopped):
        run.train()
    assert run.iter == stops
