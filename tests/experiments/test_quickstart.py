"""The table that quickstart ends with, and the detections that it writes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

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


def test_an_aborted_evaluation_leaves_no_detections(tmp_path, monkeypatch) -> None:
    cfg = Config(dict(work_dir=str(tmp_path), test_evaluator=dict(type='CocoMetric')))

    def test() -> None:
        Path(f'{cfg.test_evaluator.outfile_prefix}.bbox.json').write_text('[{')
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, 'build_tester', lambda *_, **__: SimpleNamespace(test=test))
    with pytest.raises(KeyboardInterrupt):
        quickstart._judge_detector(cfg, 'latest.pth', 'pictures', tmp_path)
    assert not list(tmp_path.iterdir())
