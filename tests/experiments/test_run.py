"""One run: what it was begun with, and when it may be gone on with."""

import json

import pytest
from toolbox import ROOT

from mmbiformer.errors import UserError
from mmbiformer.experiments import run as runs
from mmbiformer.experiments.run import Run, read_result

CONFIG = str(ROOT / 'configs/size_benchmark/retinanet_resnet_shapes.py')


@pytest.fixture
def run(tmp_path):
    return Run('resnet', CONFIG, 5, tmp_path / 'resnet_seed5')


@pytest.fixture
def stopped(run, monkeypatch):
    """Train a run that is stopped at once; gives the seeds and checkpoints of all trainings."""
    seen = []

    def build_trainer(cfg, resume, pretrained):
        assert pretrained is None
        seen.append((cfg.randomness.seed, resume))
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, 'build_trainer', build_trainer)
    with pytest.raises(KeyboardInterrupt):
        run.train('data')
    return seen


def test_an_empty_folder_is_free(run):
    run.check(resume=False)
    run.work_dir.mkdir()
    run.check(resume=False)


def test_the_recipe_is_written_whole_and_names_the_seed(run, stopped):
    assert [path.name for path in run.work_dir.iterdir()] == ['recipe.json']
    assert json.loads(run.recipe.read_text())['seed'] == 5
    assert str(run.work_dir) not in run.recipe.read_text()


def test_a_run_is_gone_on_with_only_when_asked_for(run, stopped):
    with pytest.raises(UserError, match=r'resnet_seed5. holds a run already: add --resume'):
        run.check(resume=False)
    run.check(resume=True)


@pytest.mark.parametrize('recipe', ['{"seed": 5', None], ids=['another', 'none'])
def test_another_recipe_is_not_gone_on_with(run, stopped, recipe):
    run.recipe.unlink()
    (run.work_dir / 'epoch_1.pth').touch()
    if recipe:
        run.recipe.write_text(recipe)
    with pytest.raises(UserError, match=r'resnet_seed5. was begun with another recipe than'):
        run.check(resume=True)


def test_training_begins_anew_before_the_first_checkpoint_and_goes_on_behind_it(run, stopped):
    with pytest.raises(KeyboardInterrupt):
        run.train('data')
    (run.work_dir / 'epoch_1.pth').touch()  # killed before mmengine named it elsewhere
    with pytest.raises(KeyboardInterrupt):
        run.train('data')
    assert stopped == [(5, None), (5, None), (5, 'auto')]


@pytest.mark.parametrize('name', ['out', 'resnet_seed5'])
def test_a_file_in_the_way_is_named(run, name):
    """It is that of --out-dir, or the run's."""
    (run.work_dir.parent / 'out').touch()
    run.work_dir.touch()
    inner = Run(run.name, CONFIG, 5, run.work_dir.parent / name / 'tiny/resnet_seed5')
    with pytest.raises(
        UserError, match=rf"/{name}' is a file, not a folder: choose another --out"
    ):
        inner.check(resume=True)


@pytest.mark.parametrize('content', [None, '{"mIoU": 4', '[1]'])
def test_a_broken_result_is_named(tmp_path, content):
    path = tmp_path / 'validation.metrics.json'
    if content:
        path.write_text(content)
    with pytest.raises(
        UserError, match=r"metrics\.json' is missing or broken: remove it, then --re"
    ):
        read_result(path, dict)
    path.write_text('{"mIoU": 40.0}')
    assert read_result(path, dict) == {'mIoU': 40.0}
