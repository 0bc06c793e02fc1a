"""A work folder is read as it is: begun, killed, gone on with, tested, or no run's."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from work_folders import STAMPS, training_row, write_start

from mmbiformer.errors import UserError
from mmbiformer.run_report import read_run


def steps_of(run):
    return [row['step'] for row in run.training]


def test_a_run_that_is_going_on_has_half_a_last_line(tmp_path):
    write_start(tmp_path, rows=[training_row(50), training_row(100)], end='{"lr": 0.1, "lo')
    run = read_run(tmp_path)
    assert steps_of(run) == [50, 100]
    assert not run.validations and not run.tests and not run.joins
    assert run.checkpoint is None
    assert run.name == tmp_path.name


def test_another_damaged_line_is_named(tmp_path):
    start = write_start(tmp_path, rows=[training_row(50)], end='{"lr": 0.1, "lo\n{}\n')
    with pytest.raises(UserError, match=rf"{start.name}.json', line 2 is damaged: remove it"):
        read_run(tmp_path)


def test_the_later_start_has_what_two_have(tmp_path):
    """The first was killed at iteration 250, behind its checkpoint of 200; a third is a test."""
    accuracy = 'coco/bbox_mAP'
    first = [training_row(50), training_row(100), {accuracy: 0.1, 'step': 1}]
    first += [training_row(150), training_row(200), {accuracy: 0.2, 'step': 2}, training_row(250)]
    later = [training_row(250, loss=7.0), training_row(300), {accuracy: 0.3, 'step': 3}]
    write_start(tmp_path, STAMPS[0], first)
    write_start(tmp_path, STAMPS[1], later)
    write_start(tmp_path, STAMPS[2], tested={accuracy: 0.25, 'time': 1.0})
    run = read_run(tmp_path)
    assert steps_of(run) == [50, 100, 150, 200, 250, 300]
    assert run.training[4]['loss'] == 7
    assert [(x.step, x.metrics) for x in run.validations] == [
        (step, {accuracy: step / 10}) for step in (1, 2, 3)
    ]
    assert run.joins == [250]
    assert [test.tested for test in run.tests] == [{accuracy: 0.25}]
    assert run.final_metrics == {accuracy: 0.25}  # of the test, which came last


def test_a_validation_that_is_to_come_again_is_not_shown(tmp_path):
    first = [training_row(100), training_row(200), {'acc': 0.2, 'step': 2}]
    write_start(tmp_path, STAMPS[0], first)
    write_start(tmp_path, STAMPS[1], [training_row(150)])
    run = read_run(tmp_path)
    assert steps_of(run) == [100, 150]
    assert not run.validations


def test_a_run_that_began_anew_replaces_the_other(tmp_path):
    write_start(tmp_path, STAMPS[0], [training_row(50), training_row(100)])
    write_start(tmp_path, STAMPS[1], [training_row(50)])
    run = read_run(tmp_path)
    assert steps_of(run) == [50]
    assert run.joins == []


def test_the_config_is_that_of_the_latest_training(tmp_path):
    write_start(tmp_path, STAMPS[0], [training_row(50)], config='max_skipped = 1')
    write_start(tmp_path, STAMPS[1], [training_row(50)], config='max_skipped = 2')
    write_start(tmp_path, STAMPS[2], tested=dict(acc=1.0), config='max_skipped = 3')
    assert read_run(tmp_path).cfg.max_skipped == 2


def test_validations_are_counted_as_the_config_says(tmp_path):
    write_start(tmp_path, STAMPS[0])
    assert read_run(tmp_path).unit == 'epoch'
    logger = 'default_hooks = dict(logger=dict(log_metric_by_epoch=False))'
    write_start(tmp_path, STAMPS[1], config=logger)
    assert read_run(tmp_path).unit == 'iteration'


def test_the_checkpoint_is_the_newest_or_that_of_a_later_test(tmp_path):
    write_start(tmp_path, STAMPS[0], [training_row(50)])
    for name in ('epoch_1.pth', 'epoch_2.pth', 'best_acc_epoch_1.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    assert read_run(tmp_path).checkpoint == str(tmp_path / 'epoch_2.pth')
    best = tmp_path / 'best_acc_epoch_1.pth'
    write_start(tmp_path, STAMPS[1], notes=dict(split='test', checkpoint=str(best)))
    assert read_run(tmp_path).checkpoint == str(best)
    best.unlink()  # which is then said: samples of another would be of no use
    assert read_run(tmp_path).checkpoint == str(best)


def test_the_latest_evaluation_may_be_a_test(tmp_path):
    """Metrics and scores by class are of the same one."""
    validation = dict(mIoU=0.5, step=50)
    write_start(tmp_path, STAMPS[0], [training_row(50), validation])
    assert read_run(tmp_path).final_metrics == dict(mIoU=0.5)
    write_start(tmp_path, STAMPS[1], tested=dict(mIoU=0.75))
    assert read_run(tmp_path).final_metrics == dict(mIoU=0.75)
    write_start(tmp_path, STAMPS[2], [training_row(100), dict(validation, step=100)])
    assert read_run(tmp_path).final_metrics == dict(mIoU=0.5)


def test_iou_by_class_is_that_of_the_last_table_of_mmseg(tmp_path):
    start = write_start(tmp_path)
    logger = MMLogger.get_instance(f'{tmp_path}', log_file=f'{start}/{start.name}.log')
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=['sky', 'tall tree', 'never'])
    for wrong in (0, 5):
        truth = torch.arange(2).repeat(50)
        prediction = truth.clone()
        prediction[:wrong] = 1
        areas = metric.intersect_and_union(prediction, truth, 3, 255)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MMLogger, 'get_current_instance', lambda: logger)
            metric.compute_metrics([areas])
    classes = read_run(tmp_path).classes
    assert list(classes) == ['sky', 'tall tree', 'never']
    assert classes['sky'] == dict(IoU=94.0, Acc=94.0)  # 47 of 50 are found, and nothing falsely
    assert classes['tall tree'] == dict(IoU=94.34, Acc=100.0)  # 50 of 53
    assert classes['never']['IoU'] != classes['never']['IoU']


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('', 'is not the work folder of a run: it has no folder YYYYMMDD_HHMMSS'),
        ('missing', 'is no folder: give the work folder of a run'),
        ('file', 'is no folder: give the work folder of a run'),
    ],
    ids=['empty', 'missing', 'file'],
)
def test_what_is_no_run_is_said(tmp_path, name, text):
    if name == 'file':
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=text):
        read_run(tmp_path / name)
