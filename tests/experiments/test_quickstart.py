"""What quickstart trains in, the table that it ends with, and the detections that it writes."""

import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from toolbox import CONFIGS

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.engine import device
from mmbiformer.experiments import quickstart
from mmbiformer.experiments.quickstart import DETECTION_COLUMNS, format_metrics


def test_table_shows_metrics_under_their_names() -> None:
    metrics = {'coco/bbox_mAP': 0.61, 'coco/bbox_mAP_l': 0.7}
    head, row = format_metrics(DETECTION_COLUMNS, metrics).splitlines()
    assert head.split() == ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl']
    assert row.split() == ['0.61', 'n/a', 'n/a', 'n/a', 'n/a', '0.7']


def test_empty_size_bin_has_no_value() -> None:
    row = format_metrics({'APs': 'coco/bbox_mAP_s'}, {'coco/bbox_mAP_s': -1.0}).splitlines()[1]
    assert row.split() == ['n/a']


@pytest.mark.parametrize(
    ('machine', 'units', 'wrapper'),
    [
        ('cpu', [], 'OptimWrapper'),
        ('cpu', ['amx_bf16'], 'mmbiformer.CPUAmpOptimWrapper'),
        ('cuda', ['amx_bf16'], 'OptimWrapper'),
    ],
)
def test_trains_in_bfloat16_where_the_cpu_has_units(
    monkeypatch, tmp_path, machine, units, wrapper
) -> None:
    few = functools.partial(make_shapes, num_train=6, num_val=6)
    monkeypatch.setattr(quickstart, 'make_shapes', few)
    monkeypatch.setattr(device, 'bf16_units', lambda: units)
    monkeypatch.setattr(device, 'get_device', lambda: machine)
    wrappers = []

    def train(runner: Runner) -> None:
        wrappers.append(runner.optim_wrapper['type'])
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, 'train', train)
    monkeypatch.chdir(tmp_path)  # where the run's folder will be
    config = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
    with pytest.raises(KeyboardInterrupt):
        quickstart.quickstart(str(config), data_root=str(tmp_path / 'shapes'))
    assert wrappers == [wrapper]


def test_an_aborted_evaluation_leaves_no_detections(tmp_path, monkeypatch) -> None:
    cfg = Config(dict(work_dir=str(tmp_path), test_evaluator=dict(type='CocoMetric')))

    def test() -> None:
        Path(f'{cfg.test_evaluator.outfile_prefix}.bbox.json').write_text('[{')
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, 'build_tester', lambda *_, **__: SimpleNamespace(test=test))
    with pytest.raises(KeyboardInterrupt):
        quickstart._judge_detector(cfg, 'latest.pth', 'pictures', tmp_path)
    assert not list(tmp_path.iterdir())
