"""The comparison by size: its data, what it hands to the report, going on where it stopped."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toolbox import ROOT, run_tool

from mmbiformer.benchmark import main as benchmark
from mmbiformer.errors import UserError
from mmbiformer.experiments import run as runs
from mmbiformer.experiments import size_comparison
from mmbiformer.experiments.run import Run
from mmbiformer.experiments.size_comparison import SETTINGS, predict

# One step of four images. As it has hardly learnt, every score counts.
TINY = """
_base_ = '{base}'
train_cfg = dict(max_epochs=1, val_begin=2)
model = dict(test_cfg=dict(nms_pre=20, score_thr=0.0))
"""


def files_of(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}


def refuse(*args, **kwargs) -> None:
    raise AssertionError('called')


@pytest.fixture(scope='module', autouse=True)
def tiny_setting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, 'tiny', dict(num_train=4, num_val=2))
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    base = ROOT / 'configs/size_benchmark/retinanet_resnet_shapes.py'
    path.write_text(TINY.format(base=base))
    return str(path)


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    """Two names for one config, stopped when the second was about to be complete, and resumed."""
    out_dir = tmp_path_factory.mktemp('out')
    configs, os_replace = dict(first=config, second=config), os.replace

    def replace(source, target):
        if Path(target) == out_dir / 'tiny/second_seed0/validation.bbox.json':
            raise KeyboardInterrupt
        os_replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', replace)
        with pytest.raises(KeyboardInterrupt):
            predict(configs, 'tiny', [0], str(out_dir), False)
    before = files_of(out_dir)
    result = predict(configs, 'tiny', [0], str(out_dir), True)
    return SimpleNamespace(out_dir=out_dir, configs=configs, before=before, result=result)


def test_writes_detections_of_the_validation_images(finished):
    annotations, folder, predictions = finished.result
    content = json.loads(annotations.read_text())
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    assert len(images) == 2
    assert {x['file_name'] for x in content['images']} == {x.name for x in folder.iterdir()}
    assert {(image['height'], image['width']) for image in content['images']} == {(256, 256)}
    assert list(predictions) == ['first', 'second']
    for name, (path,) in predictions.items():
        assert path == finished.out_dir / f'tiny/{name}_seed0/validation.bbox.json'
        records = json.loads(path.read_text())
        assert {record['image_id'] for record in records} == images
        assert {record['category_id'] for record in records} <= categories
        assert all(len(record['bbox']) == 4 and 0 < record['score'] < 1 for record in records)


def test_a_run_does_not_depend_on_those_before_it(finished):
    (first,), (second,) = finished.result[2].values()
    assert first.read_text() == second.read_text()


def test_every_run_keeps_its_own_curves(finished):
    for name in finished.configs:
        assert list(finished.out_dir.glob(f'tiny/{name}_seed0/*/vis_data/scalars.json'))


def test_a_second_call_neither_overwrites_nor_repeats(finished, monkeypatch):
    out_dir, configs = finished.out_dir, finished.configs
    before = files_of(out_dir)
    monkeypatch.setattr(runs, 'build_trainer', refuse)
    with pytest.raises(UserError, match=r'first_seed0. holds a run already: add --resume'):
        predict(configs, 'tiny', [0], str(out_dir), False)
    assert predict(configs, 'tiny', [0], str(out_dir), True) == finished.result
    assert files_of(out_dir) == before


def test_another_recipe_is_not_resumed(finished, tmp_path):
    out_dir, configs = finished.out_dir, finished.configs
    other = tmp_path / 'other.py'
    other.write_text(f"_base_ = '{configs['second']}'\noptim_wrapper = dict(optimizer=dict(lr=1))")
    with pytest.raises(UserError, match=r'second_seed0. was begun with another recipe'):
        predict(dict(configs, second=str(other)), 'tiny', [0], str(out_dir), True)


def test_an_interrupted_comparison_goes_on(finished):
    first, second = (finished.out_dir / f'tiny/{name}_seed0' for name in ('first', 'second'))
    trained = second / 'epoch_1.pth'
    assert {first / 'validation.bbox.json', trained} <= finished.before.keys()
    written = [x.relative_to(second) for x in finished.before if second in x.parents]
    assert not [x for x in written if 'validation' in str(x)], 'half of the detections'
    after = files_of(finished.out_dir)
    assert after[trained] == finished.before[trained], 'trained again'
    assert files_of(first).items() <= finished.before.items(), 'the finished run was touched'


@pytest.mark.parametrize('seeds', [[0, 0], [-1], [2**32]], ids=str)
def test_seeds_are_checked(config, tmp_path, seeds):
    with pytest.raises(UserError, match=r'--seeds .*: give different numbers, 0 or more, up to'):
        predict(dict(a=config), 'tiny', seeds, str(tmp_path), False)


def test_a_missing_config_is_found_before_anything_is_made(config, tmp_path):
    configs = dict(a=config, b=str(tmp_path / 'none.py'))
    with pytest.raises(UserError, match=r'none\.py. not found'):
        predict(configs, 'tiny', [0], str(tmp_path), False)
    assert not (tmp_path / 'tiny').exists()


def test_ends_with_a_report_for_each_seed(finished):
    out_dir, configs = finished.out_dir, finished.configs
    text = size_comparison.compare_detectors(configs, 'tiny', [0], str(out_dir), True)
    folder = out_dir / 'tiny/report_seed0'
    assert str(folder / 'size_ap.html') in text
    report = json.loads((folder / 'size_ap.json').read_text())
    assert [x['name'] for x in report['models']] == ['first', 'second']
    assert report['differences'][0]['sizes'][0]['AP'] == 0
    assert not (out_dir / 'tiny/seeds.csv').exists(), 'of one seed'


def test_several_seeds_are_put_together(finished, tmp_path, monkeypatch):
    annotations, images, _ = finished.result
    objects = json.loads(annotations.read_text())['annotations']
    found = [
        dict(image_id=x['image_id'], category_id=x['category_id'], bbox=x['bbox'], score=0.5)
        for x in objects
    ]
    predictions = {}
    for model, kept in dict(first=(4, 2), second=(1, 3)).items():
        predictions[model] = [tmp_path / f'{model}{i}.json' for i in range(2)]
        for path, number in zip(predictions[model], kept, strict=True):
            path.write_text(json.dumps(found[: len(found) * number // 4]))
    monkeypatch.setattr(size_comparison, 'predict', lambda *_: (annotations, images, predictions))
    (tmp_path / 'tiny').mkdir()
    text = size_comparison.compare_detectors(finished.configs, 'tiny', [5, 7], str(tmp_path), True)
    assert 'AP over seeds 5, 7' in text and str(tmp_path / 'tiny/seeds.csv') in text
    with open(tmp_path / 'tiny/seeds.csv') as file:
        lines = [x for x in csv.DictReader(file) if x['range'] == 'all']
    assert [(x['model'], x['minus']) for x in lines] == [
        *(('first', ''), ('second', ''), ('second', 'first'))
    ]
    ap = np.array([[float(x[f'AP_seed{seed}']) for seed in (5, 7)] for x in lines])
    assert ap[0, 0] == 1 and ap[0, 0] > ap[1, 1] > ap[0, 1] > ap[1, 0] > 0
    np.testing.assert_allclose(ap[2], ap[1] - ap[0])
    for seed, column in zip((5, 7), ap.T, strict=True):
        report = json.loads((tmp_path / f'tiny/report_seed{seed}/size_ap.json').read_text())
        assert [x['sizes'][0]['AP'] for x in report['models']] == pytest.approx(column[:2])

    # The same of one seed: what is over several would be of other trainings.
    one = {model: paths[:1] for model, paths in predictions.items()}
    monkeypatch.setattr(size_comparison, 'predict', lambda *_: (annotations, images, one))
    assert 'over seeds' not in size_comparison.compare_detectors(
        finished.configs, 'tiny', [5], str(tmp_path), True
    )
    assert not (tmp_path / 'tiny/seeds.csv').exists()


def test_predictions_are_in_the_order_of_seeds(config, tmp_path, monkeypatch):
    monkeypatch.setattr(size_comparison, 'make_shapes', lambda folder, **_: folder)
    monkeypatch.setattr(Run, 'train', lambda run, _: run.work_dir.mkdir(parents=True))
    monkeypatch.setattr(Run, 'evaluate', lambda run, *_: run.predictions.write_text(str(run.seed)))
    found = predict(dict(a=config, b=config), 'tiny', [7, 3], str(tmp_path), False)[2]
    assert {k: [x.read_text() for x in paths] for k, paths in found.items()} == dict(
        a=['7', '3'], b=['7', '3']
    )


def test_tool_passes_its_options_on(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(size_comparison, 'compare_detectors', lambda *arguments: arguments)
    run_tool('size_benchmark', '--seeds', 3, 4, '--out-dir', tmp_path, '--resume')
    printed = capsys.readouterr().out
    assert f"'small', [3, 4], '{tmp_path}', True" in printed
    for name in ('biformer', 'swin', 'resnet'):
        path = ROOT / f'configs/size_benchmark/retinanet_{name}_shapes.py'
        assert path.is_file()
        assert f"'{name}': '{path}'" in printed
    assert 'plugin' not in printed
    monkeypatch.setattr(benchmark, 'main', lambda *arguments: print('cost', arguments))
    run_tool('size_benchmark', '--compare', 'plugin')
    printed = capsys.readouterr().out
    assert "'small', [0], 'work_dirs/plugin_benchmark', False" in printed
    plain, deterministic = [line for line in printed.splitlines() if line.startswith('cost')]
    level = "'--level', 'plugin', '--out-dir', 'work_dirs/plugin_benchmark/cost'"
    assert f'[{level}]' in plain
    assert f"[{level}, '--mode', 'training', '--deterministic']" in deterministic
    for name in ('yolox', 'yolox_bra-p3', 'yolox_bra-p3-p4-p5'):
        path = ROOT / f'configs/plugin/{name}_shapes.py'
        assert path.is_file()
        assert f"'{name}': '{path}'" in printed
