"""The HTML report: numbers, n/a, hostile names, nothing loaded from outside, well formed."""

import copy
import re
from dataclasses import replace

import pytest
from html_pages import Page, check_accessible, check_self_contained, table_of
from size_reports import HOSTILE, make_report

from mmbiformer.evaluation.detection.bootstrap import KINDS
from mmbiformer.evaluation.detection.tide import SUMMARIES, TYPES
from mmbiformer.evaluation.formatting import interval_points, points
from mmbiformer.evaluation.report.drawing import draw_worst_images
from mmbiformer.evaluation.report.html_report import findings, render_html
from mmbiformer.evaluation.report.size_pictures import draw_ap, draw_differences, draw_errors
from mmbiformer.evaluation.report_data import ErrorCost, Score
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges

MADE = dict(command=f'python tool.py {HOSTILE}', date='2026-11-20 12:00+00:00', version='1.2.3')


def render(report, image_dir=None, title='A <title>', **made):
    figures = dict(ap=draw_ap(report), errors=draw_errors(report))
    if report.differences:
        figures['differences'] = draw_differences(report)
    album = draw_worst_images(report, image_dir)
    return render_html(report, figures, album, title, {**MADE, **made})


@pytest.fixture(scope='module')
def report():
    return make_report(bootstrap=Bootstrap(60), hostile=True)


@pytest.fixture(scope='module')
def page(report):
    return Page(render(report))


def test_sizes(report, page):
    rows = iter(table_of(page, 'AP and AR')[1:])
    for a, size in enumerate(report.ranges):
        for i, model in enumerate(report.models):
            row, cells = model.sizes[a], next(rows)
            if not i:
                assert cells[:2] == [size.label, str(row.counts['num_objects'])]
                cells = cells[2:]
            expected = [model.name]
            for kind in KINDS:
                score = row.scores[kind]
                expected += [points(score.value), interval_points(score.interval)]
            assert cells == [*expected, points(row.scores['AR'].value)]
    assert cells == ['better', *['n/a'] * 7]
    assert next(rows, None) is None


def test_twelve_numbers(report, page):
    head, *rows = table_of(page, 'The twelve numbers')
    for cells, model in zip(rows, report.models, strict=True):
        assert dict(zip(head[1:], cells[1:], strict=True)) == {
            name: points(score.value) for name, score in model.overall.items()
        }


def test_errors(report, page):
    head, *rows = table_of(page, 'Cost in points')
    assert head[2:] == [*TYPES, *(f'all {x}' for x in SUMMARIES)]
    assert len(rows) == 24
    for i, cells in enumerate(rows):
        errors = report.models[i % 2].sizes[i // 2].errors
        for cell, error in zip(cells[-len(errors) :], errors.values(), strict=True):
            count = '' if error.count is None else f' {error.count}'
            known = error.cost is not None
            assert cell.strip().split() == (points(error.cost) + count * known).split()


def test_differences(report, page):
    rows = table_of(page, 'better minus plain')[1:]
    marks = 0
    for cells, row in zip(rows, report.differences[0].sizes, strict=True):
        assert list(row.scores) == list(KINDS)
        for position, score in enumerate(row.scores.values()):
            mark = ' *' if score.excludes_zero else ''
            marks += bool(mark)
            assert cells[2 + 2 * position] == points(score.value, signed=True) + mark
            assert cells[3 + 2 * position] == interval_points(score.interval, signed=True)
    assert 0 < marks < 30


def test_classes(report, page):
    for model in report.models:
        rows = table_of(page, f'AP of {model.name} by class')[1:]
        assert [x[0] for x in rows] == report.ground_truth.categories
        for cells, category in zip(rows, model.classes, strict=True):
            for cell, values in zip(cells[1:], category.sizes, strict=True):
                ap, number = values.scores['AP'].value, values.counts['num_objects']
                assert cell == points(ap) + ('' if ap is None else f' {number}')
    attributes = [x for tag, x in page.tags if tag == 'td' and 'data-value' in x]
    rows = [row for model in report.models for x in model.classes for row in x.sizes]
    aps = [row.scores['AP'].value for row in rows]
    found = [float(x['data-value']) for x in attributes]
    assert found == pytest.approx([x for x in aps if x is not None], abs=1e-5)
    assert all(x['style'] == f'--heat:{float(x["data-value"]):.2f}' for x in attributes)


def test_nothing_comes_from_outside(page):
    assert len(page.links) > 10
    check_self_contained(page)


def test_hostile_names_are_text(page):
    assert [tag for tag, _ in page.tags].count('script') == 1
    # Of the file, the command, a class in a table, and what boxes are called.
    assert page.text.count(HOSTILE) > 4
    titles = [x.get('aria-label', '') for tag, x in page.tags if tag == 'svg']
    assert any(HOSTILE in x for x in titles)


def test_accessible(page):
    assert [tag for tag, _ in page.tags].count('img') == 3
    check_accessible(page, num_tables=6)


def test_intervals_are_explained(page):
    assert 'moved so that their mean lies on the value of all images' in page.text
    assert 'Where fewer than 5 images have' in page.text


def test_head(report, page):
    for text in ('10 images', '60 resamples', 'seed 0', MADE['date'], 'mmbiformer 1.2.3'):
        assert text in page.text
    assert f'{report.ground_truth.num_objects} objects' in page.text
    assert page.text.count('A <title>') == 2


def test_worst_images_have_captions_and_boxes(report, page):
    images = [x for m in report.models for y in m.worst_images for x in y]
    for image in images:
        assert f'{image.missed} of {len(image.objects)} objects missed' in page.text
    boxes = [x['class'] for tag, x in page.tags if tag == 'path' and x['class'] == 'missed']
    assert len(boxes) >= sum(x.missed for x in images)
    assert 'drawn on grey: no image folder was given' in page.text
    notices = page.text[page.text.rindex('Notices') :]
    assert 'worst images are drawn on grey' in notices
    assert all(x in notices for x in report.ground_truth.notices)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_one_model_without_bootstrap(iou_type):
    report = make_report(('only',), size_ranges('relative_side'), iou_type)
    page = Page(render(report, command=None))
    assert 'differences' not in page.ids
    assert 'none, hence no intervals' in page.text and 'Command' not in page.text
    head, *rows = table_of(page, 'AP and AR')
    assert head == ['range', 'objects', 'AP', 'AP50', 'AP75', 'AR']
    assert len(rows) == 4 + 7
    noun = 'Box' if iou_type == 'bbox' else 'Mask'
    assert f'{noun} AP by object size;' in page.text
    assert 'square as large as the image' in page.text


def test_without_objects():
    report = make_report(('x', 'y'), bootstrap=Bootstrap(5))
    none = Score(None, (None, None))

    def emptied(row):
        return replace(row, scores=dict.fromkeys(row.scores, none))

    models = [
        replace(
            model,
            worst_images=[[] for _ in model.sizes],
            overall=dict.fromkeys(model.overall, Score(None)),
            sizes=[
                replace(
                    emptied(row),
                    counts=dict(num_objects=0),
                    errors={kind: replace(x, cost=None) for kind, x in row.errors.items()},
                )
                for row in model.sizes
            ],
        )
        for model in report.models
    ]
    (difference,) = report.differences
    difference = replace(difference, sizes=[emptied(row) for row in difference.sizes])
    page = Page(render(replace(report, models=models, differences=[difference])))
    assert 'x: no objects, hence no AP.' in page.text
    assert {y for x in table_of(page, 'The twelve numbers')[1:] for y in x[1:]} == {'n/a'}


def test_findings():
    report = copy.deepcopy(make_report(bootstrap=Bootstrap(60)))
    for model, aps in zip(report.models, ((0.1, 0.3, 0.2), (0.4, 0.5, 0.6)), strict=True):
        for row in model.sizes[4:]:
            row.counts['num_objects'] = 3
        for row, ap in zip(model.sizes[5:8], aps, strict=True):
            row.counts['num_objects'] = 20
            row.scores['AP'] = Score(ap, (ap - 0.1, ap + 0.1))
        for kind in TYPES:
            model.sizes[0].errors[kind] = ErrorCost(0.2 if kind == 'both' else 0.1, 1)
    rows = report.differences[0].sizes

    def set_interval(row, *bounds):
        row.scores['AP'] = replace(row.scores['AP'], interval=bounds)

    for row in rows:
        set_interval(row, -0.1, 0.1)
    first, second, third = findings(report)
    assert 'lowest in 8-16, 10.0 [0.0, 20.0], and highest in 16-32, 30.0 [20.0, 40.0]' in first
    assert first.endswith('its costliest type of error is both, 20.0 of AP50.')
    assert 'lowest in 8-16, 40.0' in second and 'highest in 32-64, 60.0' in second
    assert third.endswith('in no range does the interval exclude 0.')
    set_interval(rows[2], 0.1, 0.2)
    set_interval(rows[5], -0.2, -0.1)
    set_interval(rows[6], -0.2, -0.1)
    assert findings(report)[2].endswith(
        'excludes 0, with better better in medium (32-96 px) and worse in 8-16, 16-32.'
    )
    report = replace(report, bootstrap=None)
    assert re.search('without a bootstrap.* unknown', findings(report)[2])
