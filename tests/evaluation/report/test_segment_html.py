"""The HTML report on segmenters: numbers, n/a, hostile names, nothing loaded from outside."""

from dataclasses import replace

import pytest
from html_pages import Page, check_accessible, check_self_contained, table_of
from segment_reports import EMPTY, RANGES, interval_percent, make_segment_report, percent
from size_reports import HOSTILE

from mmbiformer.evaluation.report.html_report import render_segment_html
from mmbiformer.evaluation.report.size_pictures import draw_segments
from mmbiformer.evaluation.report_data import Score
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_sizes import BY_SIZE, segment_ranges
from mmbiformer.evaluation.segmentation.segment_tables import segment_notices

MADE = dict(command=f'python tool.py {HOSTILE}', date='2026-11-20 12:00+00:00', version='1.2.3')
OVERALL = ('mIoU', 'mAcc', 'aAcc')
HEADINGS = ['pixel recall', 'class recall', 'segments found']


def render(report, **made):
    return render_segment_html(report, draw_segments(report), {**MADE, **made})


@pytest.fixture(scope='module')
def report():
    return make_segment_report(bootstrap=Bootstrap(60), hostile=True)


@pytest.fixture(scope='module')
def page(report):
    return Page(render(report))


def cells_of(scores, names, mark_sure=False):
    """Scores and their intervals, as the page shows them; differences are signed and marked."""
    cells = []
    for name in names:
        score = scores[name]
        mark = ' *' if mark_sure and score.excludes_zero else ''
        cells += [percent(score.value, mark_sure) + mark]
        cells += [interval_percent(score.interval, mark_sure)]
    return cells


def test_totals(report, page):
    head, *rows = table_of(page, 'Over all sizes, percent; differences in points')
    assert head == ['model', 'mIoU', 'interval', 'mAcc', 'interval', 'aAcc', 'interval']
    assert len(rows) == 3
    for cells, model in zip(rows, report.models, strict=False):
        assert cells == [model.name, *cells_of(model.overall, OVERALL)]
    (difference,) = report.differences
    expected = cells_of(difference.overall, OVERALL, mark_sure=True)
    assert rows[-1] == ['better minus plain', *expected]
    assert rows[-1][1].endswith(' *') and rows[-1][1].startswith('+')


def test_sizes(report, page):
    head, *rows = table_of(page, 'Recall in each range, percent')
    assert head[:5] == ['range', 'segments', 'images', 'pixels', 'model']
    assert head[5::2] == HEADINGS
    rows = iter(rows)
    for a, size in enumerate(RANGES):
        for i, model in enumerate(report.models):
            row, cells = model.sizes[a], next(rows)
            if not i:
                counts = [f'{row.counts[key]:,}' for key in ('segments', 'images', 'pixels')]
                assert cells[:4] == [size.name, *counts]
                cells = cells[4:]
            assert cells == [model.name, *cells_of(row.scores, BY_SIZE)]
            if a == EMPTY:
                assert cells[1:] == ['n/a'] * 6
    assert next(rows, None) is None


def test_differences(report, page):
    head, *rows = table_of(page, 'better minus plain, points')
    assert head[:2] == ['range', 'segments'] and head[2::2] == HEADINGS
    marks = 0
    for a, row in enumerate(report.differences[0].sizes):
        segments = report.models[0].sizes[a].counts['segments']
        cells = cells_of(row.scores, BY_SIZE, mark_sure=True)
        marks += sum('*' in x for x in cells)
        assert rows[a] == [RANGES[a].name, f'{segments:,}', *cells]
    assert 0 < marks < 3 * len(RANGES)
    assert rows[EMPTY][2:] == ['n/a'] * 6


def test_classes(report, page):
    values = []
    for model in report.models:
        head, *rows = table_of(page, f'IoU and recall of {model.name} by class')
        assert head == ['class', 'IoU', 'Acc', *(x.name for x in RANGES[1:])]
        for cells, row in zip(rows, model.classes, strict=True):
            iou, acc = (row.scores[name].value for name in ('IoU', 'Acc'))
            assert cells[:2] == [row.name, percent(iou)]
            recalls = [acc, *(x.scores['pixel_recall'].value for x in row.sizes[1:])]
            for cell, recall, size in zip(cells[2:], recalls, row.sizes, strict=True):
                count = '' if recall is None else f' {size.counts["segments"]}'
                assert cell == percent(recall) + count
            values += [iou, *recalls]
        sky, sea = rows[-2:]
        assert sky == ['sky', '0.00', *['n/a'] * len(RANGES)]
        assert sea == ['sea', *['n/a'] * (len(RANGES) + 1)]
    # What the script sorts by, and the colours.
    attributes = [x for tag, x in page.tags if tag == 'td' and 'data-value' in x]
    known = [x for x in values if x is not None]
    assert [float(x['data-value']) for x in attributes] == pytest.approx(known, abs=1e-5)
    assert [x['style'] for x in attributes] == [f'--heat:{x:.2f}' for x in known]
    assert 'sortable' in [x.get('class') for tag, x in page.tags if tag == 'table']


def test_page(page):
    check_self_contained(page)
    check_accessible(page, num_tables=5)
    assert [tag for tag, _ in page.tags].count('img') == 1
    # Of the folders, the command, and the class in a table for each model.
    assert page.text.count(HOSTILE) == 5


def test_intervals_are_explained(page):
    assert 'moved so that their mean lies on the value of all images' in page.text
    assert 'Where fewer than 5 images have' in page.text


def test_head(report, page):
    row = report.models[0].sizes[0]
    for text in ('8 images', '3 of 5 classes', '60 resamples', MADE['date'], 'mmbiformer 1.2.3'):
        assert text in page.text
    assert f'{row.counts["segments"]:,} segments, ' in page.text
    for model in report.models:
        assert model.path in page.text
    assert 'in percent, as in mmseg' in page.text and '95 % intervals' in page.text


def test_how_to_read(page):
    for text in ('8-connectivity', 'sizes have no IoU', '(micro)', '(macro)', 'least half'):
        assert text in page.text
    assert 'how far a score would move' in page.text and 'same resamples' in page.text


def test_notices(report, page):
    notices = page.text[page.text.rindex('Notices') :]
    assert len(segment_notices(report)) > 4
    for notice in segment_notices(report):
        assert notices.count(notice) == 1
    quiet = replace(report, models=[replace(x, notices=[]) for x in report.models])
    assert 'Nothing was dropped.' in Page(render(quiet)).text


def test_one_model_without_bootstrap():
    ranges = segment_ranges('relative_side')
    page = Page(render(make_segment_report(('only',), ranges), command=None))
    check_accessible(page, num_tables=3)
    assert 'differences' not in page.ids and 'minus' not in page.text
    assert 'none, hence no intervals' in page.text and 'Command' not in page.text
    assert table_of(page, 'Over all sizes, percent')[0] == ['model', *OVERALL]
    head, *rows = table_of(page, 'Recall in each range')
    assert head == ['range', 'segments', 'images', 'pixels', *HEADINGS]
    assert [x[0] for x in rows] == [x.name for x in ranges]
    assert 'interval' not in ' '.join(head) and '95 %' not in page.text
    assert 'square as large as the image' in page.text


def test_two_models_without_bootstrap():
    page = Page(render(make_segment_report()))
    (difference,) = [x for x in page.tables if x.startswith('better minus plain')]
    assert difference == 'better minus plain, points'
    assert not any('*' in cell for row in page.tables[difference] for cell in row)


def test_without_segments():
    report = make_segment_report(bootstrap=Bootstrap(5))
    none = Score(None, (None, None))
    for part in (*report.models, *report.differences):
        part.overall.update(dict.fromkeys(OVERALL, none))
        for row in part.sizes:
            row.scores.update(dict.fromkeys(BY_SIZE, none))
            if 'segments' in row.counts:
                row.counts['segments'] = 0
    page = Page(render(report))
    for begin in ('Over all sizes', 'better minus plain'):
        shown = [cell for row in table_of(page, begin)[1:] for cell in row[1:]]
        assert set(shown) <= {'n/a', '0'} and 'n/a' in shown
