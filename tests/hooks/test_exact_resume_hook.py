"""A run that was stopped and goes on is the run that was not, bit for bit."""

import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from random_runs import RandomData, Stopped, find_differences, random_run
from toolbox import ROOT, run_command
from torch.utils.data import DataLoader

from mmbiformer.errors import UserError


def load(work_dir: Path) -> dict:
    path = Path((work_dir / 'last_checkpoint').read_text())
    return torch.load(path, weights_only=False)


@pytest.fixture(scope='module')
def whole_runs(tmp_path_factory):
    """Runs without a stop, each of which is needed more than once."""
    known = {}

    def get(**options) -> dict:
        key = tuple(sorted(options.items()))
        if key not in known:
            work_dir = tmp_path_factory.mktemp('whole')
            random_run(work_dir, randomness=dict(seed=3), **options).train()
            known[key] = load(work_dir)
        return known[key]

    return get


def stop_and_resume(work_dir: Path, stops: list[dict], **options) -> dict:
    for stop in stops:
        run = random_run(work_dir, stop=stop, resume=stop is not stops[0], **options)
        with pytest.raises(Stopped):
            run.train()
    random_run(work_dir, resume=True, **options).train()
    return load(work_dir)


EVERY = [None, 3]
MOMENTS = {
    'in an epoch': [dict(step=12)],
    'before an epoch': [dict(step=14)],
    'in a validation': [dict(validation=14)],
    'twice': [dict(step=9), dict(step=17)],
}


@pytest.mark.parametrize('moment', MOMENTS)
@pytest.mark.parametrize('every', EVERY, ids=['saved at validations', 'saved every third step'])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_what_was_stopped_ends_as_what_was_not(tmp_path, whole_runs, by_epoch, every, moment):
    options = dict(by_epoch=by_epoch, every=every)
    whole = whole_runs(**options)
    seed = dict(randomness=dict(seed=3))
    resumed = stop_and_resume(tmp_path, MOMENTS[moment], **options, **seed)
    assert find_differences(whole, resumed) == []


@pytest.mark.parametrize('persistent', [True, False], ids=['persistent', 'anew'])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_loading_processes_make_no_difference(tmp_path, whole_runs, by_epoch, persistent):
    """The whole run loads in its own process, the other one in two, from within an epoch on."""
    whole = whole_runs(by_epoch=by_epoch, every=3)
    options = dict(by_epoch=by_epoch, every=3, workers=2, persistent=persistent)
    resumed = stop_and_resume(tmp_path, [dict(step=10)], randomness=dict(seed=3), **options)
    assert find_differences(whole, resumed) == []


def test_epochs_of_a_finite_sampler_in_a_loop_without_epochs(tmp_path, whole_runs):
    options = dict(by_epoch=False, every=2, sampler='DefaultSampler')
    whole = whole_runs(**options)
    resumed = stop_and_resume(tmp_path, [dict(step=11)], randomness=dict(seed=3), **options)
    assert find_differences(whole, resumed) == []


def test_another_seed_is_another_run(tmp_path, whole_runs):
    """Else nothing here would be random, and any run would be any other one."""
    random_run(tmp_path, by_epoch=True, randomness=dict(seed=4)).train()
    found = find_differences(whole_runs(by_epoch=True, every=None), load(tmp_path))
    assert 'state_dict.head.weight' in found
    assert 'message_hub.runtime_info.exact_resume' not in found


def test_a_seed_that_nobody_chose(tmp_path, monkeypatch):
    """The seed that the first run draws is in its checkpoints, and the next ones take it."""
    # What mmengine draws depends on nothing that could be set, so it is given here.
    seeds = iter([11, 12, 13])
    monkeypatch.setattr('mmengine.runner.utils.sync_random_seed', lambda: next(seeds))
    resumed = stop_and_resume(tmp_path / 'a', [dict(step=10)], by_epoch=True, every=3)
    seeds = iter([11])
    random_run(tmp_path / 'b', by_epoch=True, every=3).train()
    assert find_differences(load(tmp_path / 'b'), resumed) == []


def test_two_processes(tmp_path):
    """Statistics of norms differ between the two; both validate those that are saved."""
    script = ROOT / 'tests/helpers/random_runs.py'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers'}
    run_command(sys.executable, '-W', 'ignore', script, tmp_path, 5, env=env)
    assert find_differences(load(tmp_path / 'whole'), load(tmp_path / 'stopped')) == []


class TestWarnings:
    """A resumed run that cannot be the same one says so."""

    @pytest.fixture
    def stopped(self, tmp_path):
        with pytest.raises(Stopped):
            random_run(tmp_path, by_epoch=True, every=3, stop=dict(step=10)).train()
        return tmp_path

    def resume(self, work_dir, capsys, **options) -> str:
        capsys.readouterr()
        random_run(work_dir, by_epoch=True, resume=True, **options).train()
        return capsys.readouterr().out

    def test_of_other_epochs(self, stopped, capsys, monkeypatch):
        monkeypatch.setattr('random_runs.NUM_IMAGES', 16)
        said = self.resume(stopped, capsys)
        assert 'not the same one: the number of batches in an epoch was 7 and is 8' in said

    def test_no_batch_of_other_epochs_is_left_out(self, tmp_path, capsys, monkeypatch):
        """Of the third epoch, which begins at step 14; twelve are two epochs of the new length."""
        with pytest.raises(Stopped):
            random_run(tmp_path, by_epoch=True, stop=dict(step=14)).train()
        monkeypatch.setattr('random_runs.NUM_IMAGES', 12)
        assert 'was 7 and is 6' in self.resume(tmp_path, capsys)
        assert load(tmp_path)['meta']['iter'] == 14 + 6

    def test_the_place_in_an_epoch_behind_other_ones(self, stopped, capsys, monkeypatch):
        """The second epoch begins again at step 9, as it has other batches; the third at 15."""
        monkeypatch.setattr('random_runs.NUM_IMAGES', 12)
        with pytest.raises(Stopped):
            self.resume(stopped, capsys, every=1, stop=dict(step=17))
        self.resume(stopped, capsys)
        assert load(stopped)['meta']['iter'] == 9 + 2 * 6

    def test_of_accumulated_gradients(self, stopped, capsys):
        optim = dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=2)
        said = self.resume(stopped, capsys, optim_wrapper=optim)
        assert 'not the same one: 1 of 2 steps of gradients that were accumulated are lost' in said

    def test_of_a_checkpoint_that_was_saved_without_the_hook(self, stopped, capsys):
        path = Path((stopped / 'last_checkpoint').read_text())
        checkpoint = torch.load(path, weights_only=False)
        del checkpoint['exact_resume']
        path.with_name(f'{path.name}.sha256').unlink()
        torch.save(checkpoint, path)
        assert 'saved without ExactResumeHook' in self.resume(stopped, capsys)

    def test_of_nothing_where_there_is_nothing(self, stopped, capsys):
        assert 'same one' not in self.resume(stopped, capsys)


@LOOPS.register_module(force=True)
class OwnLoop(BaseLoop):
    """A loop of somebody's own."""

    def __init__(self, runner, dataloader) -> None:
        super().__init__(runner, dataloader)
        self.iter = self.epoch = 0
        self.max_iters = self.max_epochs = 1

    def run(self) -> None:
        self.runner.call_hook('before_train')


def test_a_loop_that_it_does_not_know_is_refused(tmp_path):
    run = random_run(tmp_path, by_epoch=True, train_cfg=dict(type='OwnLoop'))
    with pytest.raises(UserError, match='cannot go on with a OwnLoop: remove it from'):
        run.train()


def test_data_without_batches_are_refused(tmp_path):
    loader = DataLoader(RandomData(), batch_size=None)
    run = random_run(tmp_path, by_epoch=True, train_dataloader=loader)
    with pytest.raises(UserError, match='data without a batch sampler: remove it'):
        run.train()


def test_a_checkpoint_names_the_best_of_a_validation_that_was_made_up_for(tmp_path):
    for resume, stop in ((False, dict(validation=7)), (True, dict(step=8))):
        with pytest.raises(Stopped):
            random_run(tmp_path, by_epoch=True, stop=stop, resume=resume).train()
    best = load(tmp_path)['message_hub']['runtime_info']['best_ckpt']
    assert Path(best) == tmp_path / 'best_output_epoch_1.pth'
    assert Path(best).is_file()
