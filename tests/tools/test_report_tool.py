"""tools/report.py as its users run it, and what tools/train.py and tools/test.py end with."""

import json

import pytest
from html_pages import Page, check_accessible, check_self_contained, table_of
from toolbox import CONFIGS, IN_PROCESS, run_tool

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.run_report import read_run

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTATION = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
EPOCHS = ['train_cfg.val_interval=1', 'default_hooks.logger.interval=1']
BACK_ENDS = "[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]"


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', num_train=8, num_val=2)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, shapes):
    """The work folder of a detector that was trained, resumed and tested."""
    folder = tmp_path_factory.mktemp('work') / 'detector'
    common = ['--data-root', shapes, '--work-dir', folder]
    # Without a threshold it finds something after four steps, and has metrics.
    options = ['--cfg-options', *IN_PROCESS, 'model.test_cfg.score_thr=0.0', *EPOCHS]
    epochs = 'train_cfg.max_epochs=1', 'train_cfg.max_epochs=2'
    # Visualizers are global by name: one of an earlier run would keep its own folder.
    run_tool('train', DETECTION, *common, *options, epochs[0], 'visualizer.name=first')
    assert not (folder / 'run_report').exists()
    resumed = *options, epochs[1], 'visualizer.name=second'
    run_tool('train', DETECTION, '--resume', *common, *resumed)
    test = *common, *options[:-2], 'visualizer.name=third'
    run_tool('test', DETECTION, folder / 'epoch_1.pth', *test, report=True)
    return folder


def page_of(folder):
    page = Page((folder / 'run_report.html').read_text())
    check_self_contained(page)
    check_accessible(page, len(page.tables))
    return page


def test_training_and_testing_end_with_the_page(trained):
    page = page_of(trained / 'run_report')
    assert 'epoch 2 of 2, iteration 4' in page.text
    assert 'resumed before iteration 3' in page.text
    tests = table_of(page, 'Metrics of tests')
    assert tests[1][1:] == ['epoch_1.pth']
    assert 'checkpoint epoch_1.pth' in page.text
    images = [x['alt'] for tag, x in page.tags if tag == 'img']
    assert len([x for x in images if 'left the ground truth' in x]) == 2
    assert len([x for x in images if 'the query at' in x]) == 2
    speed = dict(table_of(page, 'Speed and memory'))
    assert speed['processes'] == '1'
    names = [row[0] for row in table_of(page, 'Where the latest start')]
    assert {'PyTorch', 'mmbiformer', 'onedl-mmengine'} <= set(names)
    assert (trained / 'run_report/run_report.html').stat().st_size < 3_000_000


def test_notes_say_what_was_started(trained):
    first, second, test = [json.loads(x.read_text()) for x in sorted(trained.glob('*/run_notes*'))]
    assert [x['split'] for x in (first, second, test)] == ['train', 'train', 'test']
    assert first['checkpoint'] is None
    assert second['checkpoint'].endswith('epoch_1.pth')
    assert test['checkpoint'].endswith('epoch_1.pth')


def test_running_folders_side_by_side(trained, tmp_path, capsys):
    """Logs that end within a line, and no checkpoints yet."""
    for start, name in zip(read_run(trained).starts, ('one', 'other'), strict=False):
        copy = tmp_path / name / start.folder.name / 'vis_data'
        copy.mkdir(parents=True)
        logged = start.folder / 'vis_data'
        (copy / 'config.py').write_text((logged / 'config.py').read_text())
        log = f'{start.folder.name}.json'
        (copy / log).write_text((logged / log).read_text()[:-30])
    folders = tmp_path / 'one', tmp_path / 'other'
    run_tool('report', *folders, '--out-dir', tmp_path / 'both', '--device', 'cpu')
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(tmp_path / 'both/run_report.html')
    assert 'other: samples are missing, there is no checkpoint yet' in said.err
    page = page_of(tmp_path / 'both')
    assert 'one: epoch 1 of 1, iteration 2' in page.text
    assert 'other: epoch 2 of 2, iteration 4' in page.text
    assert ['train_cfg.max_epochs', '1', '2'] in table_of(page, 'Settings that differ')


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_tool('report', tmp_path)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: '{tmp_path}' is not the work folder of a run")


def test_tensorboard_beside_the_report(tmp_path, shapes):
    """As docs/run_report.md says it, on a segmenter, which also has IoU by class."""
    loading = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator',
        reason='tensorboard is not installed: pip install -r requirements/4-mm.txt',
    )
    config, folder = tmp_path / 'config.py', tmp_path / 'work'
    line = f'visualizer = dict(vis_backends={BACK_ENDS})\n'
    config.write_text(f"_base_ = '{SEGMENTATION}'\n{line}")
    run_tool(
        *('train', config, '--data-root', shapes, '--work-dir', folder, '--cfg-options'),
        *(*IN_PROCESS, *EPOCHS, 'train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2'),
        'visualizer.name=fourth',
    )
    events = loading.EventAccumulator(str(next(folder.glob('*/vis_data/events*'))))
    events.Reload()
    run = read_run(folder)
    assert [x.step for x in events.Scalars('loss')] == [1, 2]
    losses = [row['loss'] for row in run.training]
    assert [x.value for x in events.Scalars('loss')] == pytest.approx(losses)
    shown = [x.metrics['mIoU'] for x in run.validations]
    assert [x.value for x in events.Scalars('mIoU')] == pytest.approx(shown)
    assert {'background', 'ring', 'star'} <= run.classes.keys()
