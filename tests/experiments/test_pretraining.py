"""A detector that starts from a classifier: trained once, resumed, and strictly loaded."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toolbox import ROOT, run_tool

from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.errors import UserError
from mmbiformer.experiments import run as runs
from mmbiformer.experiments import size_comparison
from mmbiformer.experiments.run import Pretraining, Run
from mmbiformer.experiments.size_comparison import SETTINGS, predict

# One step, which changes nothing: what the detector began with is what it ends with.
STILL = 'optim_wrapper = dict(optimizer=dict(lr=0.0, weight_decay=0.0))\n'
DETECTOR = """
_base_ = '{root}/configs/size_benchmark/retinanet_biformer_shapes.py'
train_cfg = dict(max_epochs=1, val_begin=2)
model = dict(test_cfg=dict(nms_pre=20, score_thr=0.0))
"""
CLASSIFIER = """
_base_ = '{root}/configs/classification/biformer_quickstart_shapes.py'
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('configs')
    (folder / 'detector.py').write_text(DETECTOR.format(root=ROOT) + STILL)
    (folder / 'classifier.py').write_text(CLASSIFIER.format(root=ROOT))
    return SimpleNamespace(
        detectors={name: str(folder / 'detector.py') for name in ('scratch', 'pretrained')},
        starts={'pretrained': str(folder / 'classifier.py')},
    )


@pytest.fixture(scope='module', autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, 'tiny', dict(num_train=4, num_val=2))
        small = partial(make_single_shapes, num_train=12, num_val=6)
        patch.setattr(runs, 'make_single_shapes', small)
        yield


@pytest.fixture(scope='module')
def finished(configs, tmp_path_factory):
    """Stopped when the classifier was trained, before it was evaluated, and resumed."""
    out_dir = tmp_path_factory.mktemp('out')
    arguments = (configs.detectors, 'tiny', [3], str(out_dir))

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, 'build_tester', stop)
        with pytest.raises(KeyboardInterrupt):
            predict(*arguments, False, configs.starts)
    trained = out_dir / 'tiny/classifier_for_pretrained_seed3/epoch_1.pth'
    time = trained.stat().st_mtime_ns
    result = predict(*arguments, True, configs.starts)
    assert trained.stat().st_mtime_ns == time, 'trained again'
    return SimpleNamespace(folder=out_dir / 'tiny', arguments=arguments, result=result)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


def test_the_detector_begins_with_the_classifiers_stages_and_the_other_does_not(finished):
    classifier = weights(finished.folder / 'classifier_for_pretrained_seed3/epoch_1.pth')
    scratch, started = (
        weights(finished.folder / f'{name}_seed3/epoch_1.pth')
        for name in ('scratch', 'pretrained')
    )
    compared = [
        name
        for name in classifier
        if name.startswith('backbone.')
        and not name.startswith('backbone.norm.')
        and not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    ]
    assert len(compared) > 50
    assert all(torch.equal(classifier[name], started[name]) for name in compared)
    assert not all(torch.equal(classifier[name], scratch[name]) for name in compared)
    assert {name for name in started if 'backbone.norm' in name} == {
        f'backbone.norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')
    }


def test_both_predict_and_the_accuracy_is_kept(finished):
    assert list(finished.result[2]) == ['scratch', 'pretrained']
    for (path,) in finished.result[2].values():
        assert json.loads(path.read_text())
    top1 = json.loads((finished.folder / 'classifier_for_pretrained_seed3/top1.json').read_text())
    assert 0 <= top1 <= 100


def test_a_second_call_repeats_nothing_and_says_the_accuracy(
    configs, finished, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise AssertionError('called')

    monkeypatch.setattr(runs, 'build_trainer', refuse)
    monkeypatch.setattr(runs, 'build_tester', refuse)
    assert predict(*finished.arguments, True, configs.starts) == finished.result
    assert 'pretrained with seed 3 starts from a classifier of' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'scratch_seed3. holds a run already: add --resume'):
        predict(*finished.arguments, False, configs.starts)


def test_a_broken_accuracy_is_named_and_one_that_was_removed_comes_again(configs, finished):
    path = finished.folder / 'classifier_for_pretrained_seed3/top1.json'
    content = path.read_text()
    path.write_text('')
    with pytest.raises(
        UserError, match=r"top1\.json' is missing or broken: remove it, then --res"
    ):
        predict(*finished.arguments, True, configs.starts)
    path.unlink()
    assert predict(*finished.arguments, True, configs.starts) == finished.result
    assert path.read_text() == content


def test_another_classifier_is_not_gone_on_with(configs, finished, tmp_path):
    other = tmp_path / 'other.py'
    other.write_text(f"_base_ = '{configs.starts['pretrained']}'\nmax_epochs = 2\n")
    message = r'classifier_for_pretrained_seed3. was begun with another recipe'
    with pytest.raises(UserError, match=message):
        predict(*finished.arguments, True, dict(pretrained=str(other)))


def test_the_recipe_says_where_a_run_starts(configs, tmp_path):
    start = Pretraining('c', configs.starts['pretrained'], 3, tmp_path / 'c')
    plain = Run('d', configs.detectors['scratch'], 3, tmp_path / 'd')
    started = Run('d', configs.detectors['scratch'], 3, tmp_path / 'd', start)
    recipes = [json.loads(run.describe_recipe()) for run in (plain, started)]
    assert recipes[1].pop('start') == json.loads(start.describe_recipe())
    assert recipes[0] == recipes[1]


def test_tool_compares_one_config_with_and_without_a_start(monkeypatch, capsys):
    monkeypatch.setattr(size_comparison, 'compare_detectors', lambda *arguments: arguments)
    run_tool('size_benchmark', '--compare', 'pretrained', '--seeds', 1)
    printed = capsys.readouterr().out
    detector = ROOT / 'configs/size_benchmark/retinanet_biformer_shapes.py'
    classifier = ROOT / 'configs/classification/biformer_quickstart_shapes.py'
    assert f"{{'scratch': '{detector}', 'pretrained': '{detector}'}}" in printed
    where = "'small', [1], 'work_dirs/pretrained_benchmark', False"
    assert f"{where}, {{'pretrained': '{classifier}'}}" in printed
