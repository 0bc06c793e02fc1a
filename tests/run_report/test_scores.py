"""Logged names are taken for what they are about."""

from math import nan

from work_folders import STAMPS, training_row, write_start

from mmbiformer.run_report import read_run
from mmbiformer.run_report.scores import by_class, by_size, highest, overall_names

LOGGED = {
    'coco/bbox_mAP_50': 0.7,
    'coco/bbox_mAP': 0.5,
    'coco/bbox_mAP_s': 0.25,
    'coco/bbox_mAP_l': -1.0,
    'coco/bbox_mAP_8-16': nan,
    'coco/bbox_mAP_tiny': 0.125,
    'coco/bbox_num_objects_8-16': 0,
    'coco/bbox_AR_100': 0.6,
    'coco/bbox_car_precision': 0.375,
    'coco/bbox_car_precision_8-16': 0.1,
    'pixel_recall_8-16': 12.5,
}


def test_sizes_classes_and_the_rest(tmp_path):
    write_start(tmp_path, rows=[training_row(50), {**LOGGED, 'step': 1}])
    run = read_run(tmp_path)
    assert overall_names([run]) == ['coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_AR_100']
    assert by_size(run) == {
        'coco/bbox_mAP': {'small': 0.25, 'large': None, '8-16': None, 'tiny': 0.125},
        'pixel_recall': {'8-16': 12.5},
    }
    assert by_class(run) == {'bbox AP': {'car': 0.375}}


def test_highest_is_of_any_validation_and_the_first_that_had_it(tmp_path):
    rows = [dict(acc=value, step=step) for step, value in enumerate([0.5, 0.75, nan, 0.75, 0.25])]
    write_start(tmp_path, rows=rows)
    run = read_run(tmp_path)
    assert highest(run, 'acc') == (0.75, 1)
    assert highest(run, 'mIoU') is None


def test_of_a_test_alone(tmp_path):
    write_start(tmp_path, STAMPS[1], tested={'mIoU': 40.0, 'aAcc': 70.0})
    run = read_run(tmp_path)
    assert overall_names([run]) == ['mIoU', 'aAcc']
    assert run.final_metrics == {'mIoU': 40.0, 'aAcc': 70.0}
