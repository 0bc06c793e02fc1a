"""The page of runs, and the files beside it."""

from types import SimpleNamespace

import numpy as np
import pytest
from html_pages import Page, check_accessible, check_self_contained, table_of
from mmengine.logging import MMLogger
from work_folders import STAMPS, training_row, write_start

from mmbiformer.run_report import report_at_end, write_run_report, writing
from mmbiformer.run_report.samples import Sample

SAMPLES = [
    Sample(kind, np.full((30, 60, 3), 99, np.uint8), f'{kind} of <b>')
    for kind in ('prediction', 'prediction', 'routing')
]
NOTES = dict(
    split='train',
    checkpoint=None,
    notices=['SyncBN becomes BN'],
    device='cpu',
    processes=2,
    environment={'PyTorch': '2.13.0'},
)


@pytest.fixture(autouse=True)
def samples(monkeypatch):
    """Samples without a model."""
    monkeypatch.setattr(writing, 'draw_samples', lambda run, device: SAMPLES)


def write_run(folder, ap, notes=NOTES, config=''):
    metrics = {'coco/bbox_mAP': ap, 'coco/bbox_mAP_s': 0.25, 'coco/car_precision': 0.5, 'step': 1}
    rows = [training_row(50), training_row(100), metrics]
    write_start(folder, STAMPS[0], rows, notes=notes, config=config)
    tested = {'coco/bbox_mAP': ap / 2, 'coco/bbox_mAP_s': 0.25, 'coco/car_precision': 0.5}
    write_start(
        folder,
        STAMPS[1],
        tested=tested,
        notes={**NOTES, 'notices': [], 'split': 'test', 'checkpoint': '/x/y.pth'},
    )
    return folder


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_page_of_one_run(tmp_path):
    folder = write_run(tmp_path / 'run<1>', 0.5)
    path, notices = write_run_report([folder], command='python report.py')
    assert path == folder / 'run_report/run_report.html'
    assert notices == []
    page = Page(path.read_text())
    check_self_contained(page)
    check_accessible(page, len(page.tables))
    assert len([x for tag, x in page.tags if tag == 'img']) == 5 + len(SAMPLES)
    figures = 'metrics', 'sizes', 'classes', 'training', 'speed'
    pictures = *figures, 'prediction_1', 'prediction_2', 'routing_1'
    expected = {f'run_report_{x}.png' for x in pictures}
    assert names_in(path.parent) == {'run_report.html', *expected}
    assert table_of(page, 'Metrics of the last validation') == [
        ['metric', 'epoch 1', 'highest'],
        ['coco/bbox_mAP', '0.5', '0.5 (epoch 1)'],
    ]
    tests = table_of(page, 'Metrics of tests')
    assert tests[0] == ['metric', '2026-01-02 10:00']
    assert tests[1:] == [['checkpoint', 'y.pth'], ['coco/bbox_mAP', '0.25']]
    assert ['small', '0.25'] in table_of(page, 'Scores of the last evaluation by size')
    assert ['car', '0.5'] in table_of(page, 'Scores of the last evaluation by class')
    speed = dict(table_of(page, 'Speed and memory'))
    assert speed['images per second'] == '16'
    assert speed['peak memory of the GPU'] == 'n/a, on the CPU'
    assert 'train of 2026-01-01 10:00: SyncBN becomes BN.' in page.text
    assert ['PyTorch', '2.13.0'] in table_of(page, 'Where the latest start')
    assert 'optim_wrapper = dict(' in page.text
    assert 'epoch 2 of 12, iteration 100; loss from 0.02 to 0.01; coco/bbox_mAP 0.25' in page.text


def test_runs_side_by_side(tmp_path):
    one = write_run(tmp_path / 'a/run', 0.5)
    other = write_run(tmp_path / 'b/run', 0.25, config='max_skipped = 1')
    out_dir = tmp_path / 'out'
    path, _ = write_run_report([one, other], out_dir)
    page = Page(path.read_text())
    check_self_contained(page)
    check_accessible(page, len(page.tables))
    head, row = table_of(page, 'Metrics of the last validation')
    assert head[1::2] == [f'{one}: epoch 1', f'{other}: epoch 1']
    assert row == ['coco/bbox_mAP', '0.5', '0.5 (epoch 1)', '0.25', '0.25 (epoch 1)']
    differing = table_of(page, 'Settings that differ')
    assert ['max_skipped', 'n/a', '1'] in differing
    assert not any(row[0].startswith('model.') for row in differing)
    assert {'run_report_1_routing_1.png', 'run_report_2_routing_1.png'} <= names_in(out_dir)


def test_pictures_of_an_earlier_report_go_and_others_stay(tmp_path, monkeypatch):
    folder = write_run(tmp_path / 'run', 0.5)
    path, _ = write_run_report([folder])
    (path.parent / 'mine.png').touch()

    def fail(run, device):
        yield SAMPLES[0]
        raise RuntimeError('no\n  luck')

    monkeypatch.setattr(writing, 'draw_samples', fail)
    path, notices = write_run_report([folder])
    assert notices == ['run: samples are missing, RuntimeError: no luck']
    assert 'run: samples are missing, RuntimeError: no luck' in Page(path.read_text()).text
    assert 'mine.png' in names_in(path.parent)
    samples = [x for x in names_in(path.parent) if 'prediction' in x or 'routing' in x]
    assert samples == [f'run_report_{SAMPLES[0].kind}_1.png']  # of before it failed


def test_a_run_of_another_program_says_so(tmp_path):
    write_start(tmp_path / 'run', rows=[training_row(50)])
    path, _ = write_run_report([tmp_path / 'run'])
    page = Page(path.read_text())
    assert 'not recorded: the run was begun by another program.' in page.text
    assert dict(table_of(page, 'Speed and memory'))['images per second'] == 'n/a'


def test_a_report_that_fails_is_a_warning_of_a_run_that_went_well(tmp_path):
    log = tmp_path / 'log.txt'
    logger = MMLogger.get_instance(f'{log}', log_file=str(log))
    runner = SimpleNamespace(work_dir=str(tmp_path / 'run'), logger=logger)
    write_run(tmp_path / 'run', 0.5)
    report_at_end(runner)
    assert f'run report: {tmp_path}/run/run_report/run_report.html' in log.read_text()
    notes = tmp_path / 'run' / STAMPS[0] / 'vis_data/config.py'
    notes.write_text('1 / 0')
    report_at_end(runner)
    last = log.read_text().splitlines()[-1]
    assert 'WARNING - no run report: UserError: config' in last
    assert last.endswith(f'to make it again: python tools/report.py {tmp_path}/run')
