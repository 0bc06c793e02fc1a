"""What stands in the sections, and what does not where there is nothing to say."""

from work_folders import STAMPS, training_row, write_start

from mmbiformer.run_report import read_run
from mmbiformer.run_report.sections import make_sections


def sections_of(*runs, samples=None, problems=None):
    parts = make_sections(runs, {}, samples or {}, problems or {})
    return {part.id: part for part in parts}


def test_of_a_test_alone(tmp_path):
    write_start(tmp_path, STAMPS[0], tested={'mIoU': 40.0}, notes=dict(checkpoint='/x/best.pth'))
    parts = sections_of(read_run(tmp_path))
    assert not {'sizes', 'classes', 'training', 'speed'} & parts.keys()
    (table,) = parts['metrics'].tables
    assert table.rows == [['checkpoint', 'best.pth'], ['mIoU', '40']]
    assert parts['routing'].lines == ['No model here has routed attention.']


def test_a_test_that_found_nothing_is_there(tmp_path):
    write_start(tmp_path, STAMPS[0], tested={'time': 1.0})
    (table,) = sections_of(read_run(tmp_path))['metrics'].tables
    assert table.rows == [['checkpoint', 'n/a']]


def test_classes_are_ordered_by_their_score_and_those_without_come_last(tmp_path):
    classes = dict(cat=0.5, never=-1.0, dog=0.25)
    row = {f'coco/{name}_precision': value for name, value in classes.items()}
    write_start(tmp_path, rows=[training_row(50), {**row, 'step': 1}])
    (table,) = sections_of(read_run(tmp_path))['classes'].tables
    assert table.rows == [['dog', '0.25'], ['cat', '0.5'], ['never', 'n/a']]


def test_runs_of_different_data_have_gaps_and_the_settings_that_differ(tmp_path):
    runs = []
    for name in ('one', 'other'):
        row = {f'bbox_mAP_{name}': 0.5, 'bbox_mAP': 0.25, 'step': 1}
        config = f"experiment_name = '{name}'"
        write_start(tmp_path / name, rows=[training_row(50), row], config=config)
        runs.append(read_run(tmp_path / name))
    parts = sections_of(*runs, problems=dict(other='no data'))
    (table,) = parts['sizes'].tables
    assert table.head == ['size', 'one: bbox_mAP', 'other: bbox_mAP']
    assert table.rows == [['one', '0.5', 'n/a'], ['other', 'n/a', '0.5']]
    (settings,) = parts['configuration'].tables
    assert ['experiment_name', "'one'", "'other'"] in settings.rows
    assert parts['predictions'].lines == ['other: samples are missing, no data']
    assert list(parts['configuration'].texts) == ['Config of one', 'Config of other']
