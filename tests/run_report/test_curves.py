"""Figures show what was logged, a colour and a marker for each run."""

import numpy as np
import pytest
from work_folders import training_row, write_start

from mmbiformer.run_report import read_run
from mmbiformer.run_report.curves import (
    MOST_CLASSES,
    MOST_PANELS,
    MOST_POINTS,
    draw_classes,
    draw_metrics,
    draw_sizes,
    draw_speed,
    draw_training,
    thin,
)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two runs, of which the first was resumed."""
    made = []
    for number in (1, 2):
        folder = tmp_path_factory.mktemp(f'run_{number}_of_$x$')
        rows = [training_row(step, loss=number / step) for step in (50, 100)]
        metrics = {'mIoU': 10.0 * number, 'bbox_mAP_s': 0.1 * number, 'bbox_mAP_l': 0.5}
        write_start(folder, rows=[*rows, {**metrics, 'bbox_car_precision': 0.25, 'step': 1}])
        made.append(read_run(folder))
    made[0].joins = [100]
    return made


def lines_of(axes):
    """Points of each line with more than the points of a legend."""
    return [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata())]


def panel(picture, title):
    (axes,) = (x for x in picture.figure.axes if x.get_title(loc='left') == title)
    return axes


def test_curves_lie_over_each_other(runs):
    picture = draw_training(runs)
    loss = panel(picture, 'loss')
    assert lines_of(loss) == [[[50, 0.02], [100, 0.01]], [[50, 0.04], [100, 0.02]]]
    colours = [line.get_color() for line in loss.lines if len(line.get_xdata())]
    assert len(set(colours)) == 2
    titles = [axes.get_title(loc='left') for axes in picture.figure.axes if axes.axison]
    assert titles == ['loss', 'lr']
    (legend,) = picture.figure.legends
    assert [x.get_text() for x in legend.get_texts()] == [run.name for run in runs]


def test_one_run_has_no_legend_but_shows_where_it_was_resumed(runs):
    picture = draw_training(runs[:1])
    assert not picture.figure.legends
    assert [[100, 0], [100, 1]] in lines_of(panel(picture, 'loss'))
    assert 'dashed where the run was resumed' in picture.caption


def test_metrics_sizes_classes_and_speed(runs):
    assert lines_of(panel(draw_metrics(runs), 'mIoU')) == [[[1, 10]], [[1, 20]]]
    sizes = panel(draw_sizes(runs), 'bbox_mAP')
    assert [x.get_height() for x in sizes.patches] == [0.1, 0.5, 0.2, 0.5]
    (classes,) = draw_classes(runs).figure.axes
    assert lines_of(classes) == [[[0.25, 0]], [[0.25, 0]]]
    assert [x.get_text() for x in classes.get_yticklabels()] == ['car']
    speed = draw_speed(runs)
    assert lines_of(panel(speed, 'time, s per iteration'))[0] == [[50, 0.5], [100, 0.5]]


def test_what_was_not_logged_has_no_figure(tmp_path):
    write_start(tmp_path)
    run = read_run(tmp_path)
    draws = draw_training, draw_speed, draw_metrics, draw_sizes, draw_classes
    assert [draw([run]) for draw in draws] == [None] * 5


def test_many_quantities_and_classes_are_cut_and_said(tmp_path):
    losses = {f'loss_{i}': 1.0 for i in range(MOST_PANELS)}
    classes = {f'class{i}_precision': i / 100 for i in range(MOST_CLASSES + 1)}
    write_start(tmp_path, rows=[training_row(50, **losses), {**classes, 'step': 1}])
    run = read_run(tmp_path)
    picture = draw_training([run])
    assert len(picture.figure.axes) == MOST_PANELS
    assert '; 2 further quantities are in the log alone' in picture.caption
    lowest = draw_classes([run])
    assert f'the {MOST_CLASSES} lowest of {MOST_CLASSES + 1} classes' in lowest.caption


def test_long_curves_are_means_of_neighbours():
    x = np.arange(3.0 * MOST_POINTS)
    for values in thin(x, 2 * x):
        assert len(values) == MOST_POINTS
    assert thin(x, 2 * x)[1][:2].tolist() == [2, 8]
    assert thin(x[:5], x[:5])[0].tolist() == [0, 1, 2, 3, 4]
