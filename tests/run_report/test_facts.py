"""Single numbers of a run follow from what it logged."""

import pytest
from work_folders import DETECTION, STAMPS, training_row, write_start

from mmbiformer.run_report import read_run
from mmbiformer.run_report.facts import (
    describe_duration,
    describe_progress,
    flatten,
    measure_speed,
    peak_memory,
)


def test_speed_and_memory(tmp_path):
    rows = [
        training_row(50, time=3.0, data_time=1.5, memory=100),
        training_row(100, time=0.5, data_time=0.1, memory=300),
        training_row(120, time=0.5, data_time=0.1, memory=200),
    ]
    write_start(tmp_path, rows=rows, notes=dict(split='train', processes=2))
    run = read_run(tmp_path)
    speed = measure_speed(run)
    assert speed.seconds == 0.5
    assert speed.waiting == pytest.approx(0.2)
    assert speed.images == 4 * 2 / 0.5  # the config's batch of 4 in two processes
    assert speed.total == 50 * 3 + 70 * 0.5
    assert peak_memory(run) == 300
    assert describe_progress(run) == 'epoch 2 of 12, iteration 120'


def test_what_is_not_known_is_none(tmp_path):
    write_start(tmp_path, rows=[training_row(50)])
    run = read_run(tmp_path)
    assert measure_speed(run).images is None
    assert peak_memory(run) is None
    run.training = []
    assert measure_speed(run) is None
    assert describe_progress(run) == 'no training'


def test_without_local_back_end_there_are_no_curves(tmp_path):
    """mmengine then writes its config to the work folder alone."""
    (tmp_path / STAMPS[0]).mkdir()
    backends = "[dict(type='TensorboardVisBackend')]"
    config = f"_base_ = '{DETECTION}'\nvisualizer = dict(vis_backends={backends})\n"
    (tmp_path / 'config.py').write_text(config)
    assert 'has no LocalVisBackend' in describe_progress(read_run(tmp_path))


def test_progress_in_iterations(tmp_path):
    loop = "_delete_=True, type='IterBasedTrainLoop', max_iters=8000"
    write_start(tmp_path, rows=[training_row(1200)], config=f'train_cfg = dict({loop})')
    assert describe_progress(read_run(tmp_path)) == 'iteration 1,200 of 8,000'


@pytest.mark.parametrize(
    ('seconds', 'text'), [(12, '12 s'), (130, '2 min'), (3599, '1 h 00 min'), (7500, '2 h 05 min')]
)
def test_durations(seconds, text):
    assert describe_duration(seconds) == text


def test_flatten_names_every_value():
    part = dict(a=dict(b=1, c=[]), d=[dict(e='x'), 2], f=(1, 2))
    assert flatten(part) == {
        'a.b': '1',
        'a.c': '[]',
        'd.0.e': "'x'",
        'd.1': '2',
        'f': '(1, 2)',
    }
