"""The ablation of attentions: what it trains, its tables, and what the tool passes on."""

import csv
import json

import pytest
from toolbox import ROOT, run_tool

from mmbiformer.benchmark import main as benchmark
from mmbiformer.benchmark.ablation_rows import ROWS
from mmbiformer.errors import UserError
from mmbiformer.experiments import ablation
from mmbiformer.experiments import run as runs
from mmbiformer.experiments.ablation import ablate, segmentation_text
from mmbiformer.experiments.run import Run, SegmentationRun

# One step; as it has hardly learnt, every score counts.
DETECTOR = """
_base_ = '{base}'
train_cfg = dict(max_epochs=1, val_begin=2)
model = dict(test_cfg=dict(nms_pre=20, score_thr=0.0))
"""
SEGMENTER = """
_base_ = '{base}'
train_cfg = dict(max_iters=1, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1))
train_dataloader = dict(batch_size=2)
"""


@pytest.fixture(scope='module')
def configs(tmp_path_factory) -> tuple[dict, dict]:
    """Tiny detectors with two attentions, and a segmenter."""
    folder = tmp_path_factory.mktemp('configs')
    found = []
    names = 'shifted-window', 'criss-cross'
    for method, text, chosen in (('retinanet', DETECTOR, names), ('fpn', SEGMENTER, names[1:])):
        paths = {}
        for name in chosen:
            path = folder / f'{method}_{name}.py'
            base = ROOT / f'configs/ablation/{method}_{name}_shapes.py'
            path.write_text(text.format(base=base))
            paths[name] = str(path)
        found.append(paths)
    return tuple(found)


def test_trains_evaluates_and_goes_on(configs, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(ablation.SHAPES, 'num_train', 4)
    monkeypatch.setitem(ablation.SHAPES, 'num_val', 2)
    text = ablate(*configs, [1], str(tmp_path), False)
    assert 'Segmentation, seeds 1' in text
    report = json.loads((tmp_path / 'report_seed1/size_ap.json').read_text())
    assert [x['name'] for x in report['models']] == ['shifted-window', 'criss-cross']
    path = tmp_path / 'segmentation/criss-cross_seed1/validation.metrics.json'
    metrics = json.loads(path.read_text())
    assert 0 <= metrics['mIoU'] <= metrics['mAcc'] <= 100
    numbers = (f'{metrics[name]:.1f}' for name in ('mIoU', 'mAcc', 'aAcc'))
    row = [cell.strip() for cell in ('', 'criss-cross', *numbers, '')]
    table = text.rpartition('Segmentation')[2].splitlines()
    assert row in [[cell.strip() for cell in line.split('|')] for line in table]
    with pytest.raises(UserError, match='holds a run already: add --resume'):
        ablate(*configs, [1], str(tmp_path), False)

    # What is there is kept; of two seeds there is a table over them.
    trained, build_trainer = [], runs.build_trainer

    def noting_trainer(config, **options):
        trained.append(config.randomness.seed)
        return build_trainer(config, **options)

    monkeypatch.setattr(runs, 'build_trainer', noting_trainer)
    other = ablate(*configs, [1, 2], str(tmp_path), True)
    assert trained == [2, 2, 2]
    assert 'AP over seeds 1, 2' in other and 'Segmentation, seeds 1, 2' in other
    with open(tmp_path / 'seeds.csv') as file:
        lines = [x for x in csv.DictReader(file) if x['range'] == 'all']
    assert [(x['model'], x['minus']) for x in lines] == [
        *(('shifted-window', ''), ('criss-cross', ''), ('criss-cross', 'shifted-window'))
    ]


def test_each_attention_gets_its_own_results(tmp_path, monkeypatch) -> None:
    """Of every run the result says which it is; more seeds than models, in no order."""
    monkeypatch.setattr(ablation, 'check_runs', lambda *_: None)
    monkeypatch.setattr(ablation, 'make_shapes', lambda folder, **_: folder)

    def train(run: Run, _: str) -> str:
        run.work_dir.mkdir(parents=True)
        return run.config

    def evaluate(run: Run, _: str, config: str) -> None:
        number = 10 * int(config) + run.seed
        run.predictions.write_text(json.dumps(dict.fromkeys(('mIoU', 'mAcc', 'aAcc'), number)))

    for kind in (Run, SegmentationRun):
        monkeypatch.setattr(kind, 'train', train)
        monkeypatch.setattr(kind, 'evaluate', evaluate)
    reported, tables = [], []
    monkeypatch.setattr(ablation, 'report_by_size', lambda *arguments: reported.append(arguments))
    monkeypatch.setattr(ablation, 'segmentation_text', lambda *arguments: tables.append(arguments))
    detectors, segmenters = dict(a='1', b='2'), dict(b='4', a='3')
    ablate(detectors, segmenters, [7, 3, 5], str(tmp_path), False)
    found = {
        name: [json.loads(path.read_text())['mIoU'] for path in paths]
        for name, paths in reported[0][2].items()
    }
    assert found == dict(a=[17, 13, 15], b=[27, 23, 25])
    assert list(found) == ['a', 'b'] and reported[0][3] == [7, 3, 5]
    ((metrics, seeds),) = tables
    assert seeds == [7, 3, 5]
    assert {name: [x['aAcc'] for x in rows] for name, rows in metrics.items()} == dict(
        b=[47, 43, 45], a=[37, 33, 35]
    )
    # A result that is not whole is named.
    (tmp_path / 'segmentation/a_seed3/validation.metrics.json').write_text('{"mIoU"')
    with pytest.raises(UserError, match=r"a_seed3/.*json' is missing or broken: remove it, then"):
        ablate(detectors, segmenters, [7, 3, 5], str(tmp_path), True)


def test_a_missing_config_is_found_before_anything_is_made(configs, tmp_path) -> None:
    detectors, segmenters = configs
    missing = dict(segmenters, other=str(tmp_path / 'none.py'))
    with pytest.raises(UserError, match=r'none\.py. not found'):
        ablate(detectors, missing, [0], str(tmp_path / 'out'), False)
    assert not (tmp_path / 'out').exists()


def test_table_of_segmentation() -> None:
    one = dict(mIoU=40.0, mAcc=50.0, aAcc=60.0)
    two = dict(mIoU=42.0, mAcc=50.0, aAcc=61.0)
    text = segmentation_text(dict(a=[one, two], b=[two, two]), [0, 1])
    assert '| a     | 41.0 ± 1.4 | 50.0 ± 0.0 | 60.5 ± 0.7 |' in text
    assert '| b     | 42.0 ± 0.0 |' in text
    assert '| a     | 40.0 | 50.0 | 60.0 |' in segmentation_text(dict(a=[one]), [0])


def test_tool_keeps_a_cost_that_was_measured(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(ablation, 'ablate', lambda *_: 'trained')
    monkeypatch.setattr(benchmark, 'main', lambda *_: print('cost measured'))
    path = tmp_path / 'cost/ablation_1.json'
    path.parent.mkdir()
    run_tool('ablation', '--out-dir', tmp_path, '--resume')
    assert capsys.readouterr().out == 'trained\ncost measured\n'
    path.touch()
    run_tool('ablation', '--out-dir', tmp_path, '--resume')
    assert capsys.readouterr().out == f'trained\ncost of each is there: {path}\n'
    run_tool('ablation', '--out-dir', tmp_path)
    assert capsys.readouterr().out == 'trained\ncost measured\n'


def test_tool_passes_its_options_on(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, 'ablate', lambda *arguments: arguments)
    monkeypatch.setattr(benchmark, 'main', lambda *arguments: print('cost', arguments[2]))
    run_tool('ablation', '--seeds', 0, 1, '--resume')
    printed = capsys.readouterr().out
    assert "[0, 1], 'work_dirs/ablation', True" in printed
    assert printed.startswith("({'shifted_window'")
    for name in ROWS:
        for method in ('retinanet', 'fpn'):
            path = ROOT / f'configs/ablation/{method}_{name.replace("_", "-")}_shapes.py'
            assert path.is_file()
            assert f"'{name}': '{path}'" in printed
    assert "['--level', 'ablation', '--size', '224', '512', '800x1344', '--out-dir'" in printed
