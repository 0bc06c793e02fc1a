"""The files of a report: all of them, of one report, and never half of one."""

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from segment_reports import make_segment_report
from size_reports import make_report

from mmbiformer import __version__
from mmbiformer.evaluation.detection.size_tables import report_csv
from mmbiformer.evaluation.report.report_files import write_report, write_segment_report
from mmbiformer.evaluation.report.report_json import report_json
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_tables import segment_csv


@pytest.fixture(scope='module')
def report():
    return make_report(bootstrap=Bootstrap(20))


@pytest.fixture(scope='module')
def single():
    return make_report(('only',))


def test_all_files(report, tmp_path):
    for image in (x for y in report.models[0].worst_images for x in y):
        cv2.imwrite(str(tmp_path / image.file_name), np.zeros((200, 200, 3), np.uint8))
    folder = tmp_path / 'new' / 'folder'
    paths = write_report(report, folder, image_dir=tmp_path, title='Mine', command='make x')
    assert {key: path.name for key, path in paths.items()} == dict(
        json='size_ap.json',
        csv='size_ap.csv',
        html='size_ap.html',
        ap='size_ap.png',
        errors='size_ap_errors.png',
        differences='size_ap_differences.png',
    )
    assert sorted(folder.iterdir()) == sorted(paths.values())
    content = json.loads(paths['json'].read_text())
    made = content.pop('made')
    assert content == report_json(report)
    assert made['command'] == 'make x' and made['version'] == __version__
    assert datetime.fromisoformat(made['date']).tzinfo is not None
    assert paths['csv'].read_text() == report_csv(report)
    html = paths['html'].read_text()
    assert '<title>Mine</title>' in html and made['date'] in html and 'make x' in html
    assert 'data:image/jpeg' in html
    for key in ('ap', 'errors', 'differences'):
        height, width, _ = cv2.imread(str(paths[key])).shape
        assert width > 1200 and height > 500


def test_the_worst_images_link_to_their_explorers(report, tmp_path):
    """At the middle of the first object that is missed, if one is."""
    images = [x for y in report.models[0].worst_images for x in y]
    missing = next(x for x in images if any(not y.found for y in x.objects))
    explorers = tmp_path / 'two words'
    explorers.mkdir()
    html = write_report(report, tmp_path / 'out', explorer_dir=explorers)['html'].read_text()
    assert 'route to</a>' not in html
    (explorers / f'{Path(missing.file_name).stem}.html').touch()
    html = write_report(report, tmp_path / 'out', explorer_dir=explorers)['html'].read_text()
    x, y, width, height = next(x for x in missing.objects if not x.found).box
    address = f'../two%20words/{Path(missing.file_name).stem}.html'
    assert f'href="{address}#{x + width / 2:.1f},{y + height / 2:.1f}"' in html
    others = {x.file_name for x in images} - {missing.file_name}
    assert others
    assert not any(f'{Path(x).stem}.html' in html for x in others)


def test_of_one_model_no_difference_of_an_earlier_report_is_left(single, tmp_path):
    (tmp_path / 'size_ap_differences.png').touch()
    paths = write_report(single, tmp_path)
    assert 'differences' not in paths
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


def test_a_write_that_fails_leaves_the_earlier_file_whole(single, tmp_path, monkeypatch):
    (tmp_path / 'size_ap.html').write_text('earlier')
    replace = os.replace

    def fail(source, target):
        if str(target).endswith('.html'):
            raise OSError('disk is full')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk is full'):
        write_report(single, tmp_path)
    assert (tmp_path / 'size_ap.html').read_text() == 'earlier'
    assert not list(tmp_path.glob('.*'))


def test_nothing_is_written_of_a_report_that_cannot_be_drawn(single, tmp_path):
    broken = replace(single, models=[replace(single.models[0], best_threshold=object())])
    with pytest.raises(TypeError):
        write_report(broken, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('bootstrap', [None, Bootstrap(20)])
@pytest.mark.parametrize('names', [('only',), ('plain', 'better')])
def test_all_files_of_a_segment_report(names, bootstrap, tmp_path):
    report = make_segment_report(names, bootstrap=bootstrap)
    (tmp_path / 'segment_sizes.html').write_text('earlier')
    paths = write_segment_report(report, tmp_path, command='make x')
    assert {key: path.name for key, path in paths.items()} == {
        key: f'segment_sizes.{key}' for key in ('json', 'csv', 'html', 'png')
    }
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    content = json.loads(paths['json'].read_text())
    made = content.pop('made')
    assert content == report_json(report)
    assert made['command'] == 'make x' and made['version'] == __version__
    assert paths['csv'].read_text() == segment_csv(report)
    html = paths['html'].read_text()
    assert made['date'] in html and 'make x' in html
    assert '<title>Segmentation across segment sizes</title>' in html
    height, width, _ = cv2.imread(str(paths['png'])).shape
    assert width > 1200 and height > 1000
