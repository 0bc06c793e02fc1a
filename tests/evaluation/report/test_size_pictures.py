"""What is drawn is what the reports say."""

import copy
import io
from dataclasses import replace
from math import log2

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from segment_reports import ALONE, EMPTY, make_segment_report
from size_reports import HOSTILE, make_report

from mmbiformer.evaluation.detection.bootstrap import KINDS
from mmbiformer.evaluation.detection.tide import SUMMARIES, TYPES
from mmbiformer.evaluation.report.size_pictures import (
    COLORS,
    draw_ap,
    draw_differences,
    draw_errors,
    draw_segments,
    place_bins,
)
from mmbiformer.evaluation.report_data import Score
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.segmentation.segment_sizes import segment_ranges
from mmbiformer.evaluation.sizes import COCO_RANGES, size_ranges

GAP = 6  # a range in the middle that is made empty


@pytest.fixture(scope='module')
def report():
    report = make_report(('first', 'second', 'third'), bootstrap=Bootstrap(40))
    none = Score(None, (None, None))
    for model in report.models:
        row = model.sizes[GAP]
        row.counts['num_objects'] = 0
        row.scores.update(dict.fromkeys(KINDS, none))
        row.errors.update({kind: replace(x, cost=None) for kind, x in row.errors.items()})
    for difference in report.differences:
        difference.sizes[GAP].scores.update(dict.fromkeys(KINDS, none))
    return report


def points(values):
    return [np.nan if x is None else 100 * x for x in values]


def whiskers(axes):
    """(bottom, top) of each, of all models after one another; matplotlib leaves nan out."""
    found = [x.get_segments() for x in axes.collections if x.get_linewidth()[0] == 4]
    return [tuple(y[:, 1]) for x in found for y in x if len(y)]


def write(figure):
    figure.savefig(io.BytesIO(), format='png', dpi=30)


def test_curves_are_the_report(report):
    figure = draw_ap(report)
    write(figure)
    top, bottom = figure.axes
    curves = [x for x in top.lines if x.get_marker() != 'None']
    assert [x.get_color() for x in curves] == list(COLORS[:3])
    for line, model in zip(curves, report.models, strict=True):
        expected = points(x.scores['AP'].value for x in model.sizes[4:])
        np.testing.assert_array_equal(line.get_ydata(), expected)
        assert np.isnan(line.get_ydata()).sum() == 3
    bounds = [x.scores['AP'].interval for m in report.models for x in m.sizes[4:]]
    expected = [points(x) for x in bounds if None not in x]
    np.testing.assert_allclose(whiskers(top), expected)
    assert [x.get_text() for x in figure.legends[0].get_texts()] == ['first', 'second', 'third']
    heights = [x.get_height() for x in bottom.patches]
    assert heights == [x.counts['num_objects'] for x in report.models[0].sizes[4:]]
    assert top.get_ylabel() == 'box AP, points'
    assert bottom.get_xlabel() == 'side of object (√area), px, log scale'


def test_empty_ranges_are_labelled(report):
    centres = place_bins(report.ranges).centres
    empty = [centres[i] for i in (GAP - 4, 6, 7)]
    for figure in (draw_ap(report), draw_differences(report)):
        texts = [x for x in figure.axes[0].texts if x.get_text() == 'n/a']
        assert [x.get_position()[0] for x in texts] == empty
    for axes in draw_errors(report).axes:
        assert [x.get_position()[0] for x in axes.texts] == [GAP - 4, 6, 7]


def test_dotted_lines_are_those_of_coco(report):
    (top, _) = draw_ap(report).axes
    dotted = [x.get_segments()[0] for x in top.collections if x.get_linewidth()[0] < 4]
    values = [x.scores['AP'].value for model in report.models for x in model.sizes[1:4]]
    np.testing.assert_allclose([x[0, 1] for x in dotted], points(values))
    np.testing.assert_allclose(dotted[1][:, 0], [5, log2(96)])


def test_bins_lie_by_their_sides(report):
    bins = place_bins(report.ranges)
    assert bins.is_log
    np.testing.assert_allclose(bins.edges, [(2 + i, 3 + i) for i in range(8)])
    assert bins.names[0] == '0-8'


@pytest.mark.parametrize(
    ('measure', 'ranges', 'label'),
    [
        ('side', dict(overlap=(0, 20), other=(10, 40)), 'side of object (√area), px'),
        ('side', dict(narrow=(30, 31), wide=(31, 500)), 'side of object (√area), px'),
        ('side', dict(everything=(0, float('inf'))), 'side of object (√area), px'),
        ('relative_side', None, 'side of object (√area), % of √(image area), log scale'),
    ],
)
def test_other_ranges(measure, ranges, label):
    report = make_report(('x', 'y'), size_ranges(measure, ranges))
    bins = place_bins(report.ranges)
    assert bins.label == label
    assert bins.is_log == label.endswith('log scale')
    if not bins.is_log:
        assert bins.centres.tolist() == list(range(len(ranges)))
    figure = draw_ap(report)
    styles = {x.get_linestyle() for x in figure.axes[0].lines if x.get_marker() != 'None'}
    assert styles == ({'-'} if bins.is_log else {'None'})
    assert not whiskers(figure.axes[0])
    for drawn in (figure, draw_errors(report), draw_differences(report)):
        write(drawn)


def test_ranges_of_coco_alone():
    report = make_report(('x',))
    models = [replace(x, sizes=x.sizes[:4]) for x in report.models]
    report = replace(report, ranges=report.ranges[:4], models=models)
    bins = place_bins(report.ranges)
    assert bins.positions == [1, 2, 3] and bins.is_log
    assert [x.split('\n')[0] for x in bins.names] == [x.name for x in COCO_RANGES[1:]]
    write(draw_ap(report))


def test_bars_are_the_costs(report):
    figure = draw_errors(report)
    write(figure)
    panels = figure.axes
    assert [x.get_title('left').removeprefix('all ') for x in panels] == [*TYPES, *SUMMARIES]
    for axes, kind in zip(panels, (*TYPES, *SUMMARIES), strict=True):
        bars = [x.get_height() for x in axes.patches]
        expected = [x.errors[kind].cost for model in report.models for x in model.sizes[4:]]
        np.testing.assert_array_equal(bars, points(expected))
        assert axes.get_ylim() == panels[0].get_ylim()
    bars = panels[0].patches
    assert bars[0].get_facecolor() == to_rgba(COLORS[0])
    assert bars[0].get_x() + bars[0].get_width() == pytest.approx(bars[8].get_x())


def test_differences(report):
    report = copy.deepcopy(report)
    row = report.differences[1].sizes[5]
    ap = row.scores['AP'].value
    row.scores['AP'] = Score(ap, (ap + 0.1, ap + 0.2))  # a skewed one
    figure = draw_differences(report)
    write(figure)
    (axes,) = figure.axes
    names = [x.get_text() for x in figure.legends[0].get_texts()]
    assert names == ['second minus first', 'third minus first']
    lines = [x for x in axes.lines if x.get_marker() != 'None']
    for i, difference in enumerate(report.differences):
        hollow, filled = lines[2 * i : 2 * i + 2]
        rows = difference.sizes[4:]
        expected = points(x.scores['AP'].value for x in rows)
        np.testing.assert_array_equal(hollow.get_ydata(), expected)
        assert hollow.get_markerfacecolor() == 'white'
        assert hollow.get_color() == COLORS[i + 1]  # the model's in the other figures
        sure = [x.scores['AP'].value for x in rows if x.scores['AP'].excludes_zero]
        np.testing.assert_array_equal(filled.get_ydata(), points(sure))
    assert len(sure) > 0
    skewed = whiskers(axes)[len(whiskers(axes)) // 2 + 1]
    assert skewed == pytest.approx(points(row.scores['AP'].interval))


def test_masks_and_names_that_look_like_formulas():
    ranges = size_ranges('side', {'a$b_{$': (0, 32), '_': (32, 64)})
    report = make_report(('_a', 'b$c_{$', HOSTILE), ranges, 'segm', hostile=True)
    figures = draw_ap(report), draw_errors(report), draw_differences(report)
    for figure in figures:
        write(figure)
    assert figures[0].axes[0].get_ylabel() == 'mask AP, points'
    for figure in figures[:2]:
        names = [x.get_text() for x in figure.legends[0].get_texts()]
        assert names == ['_a', 'b$c_{$', HOSTILE]


def test_recall_of_segments():
    report = make_segment_report(('x', '$y_$'), bootstrap=Bootstrap(40))
    figure = draw_segments(report)
    write(figure)
    *panels, bottom = figure.axes
    bins = place_bins(report.ranges, 'segment')
    assert bins.positions == [1, 2, 3, 4, 5, 6] and bins.is_log
    for axes, kind in zip(panels, ('pixel_recall', 'segments_found'), strict=True):
        curves = [x for x in axes.lines if x.get_marker() != 'None']
        assert [x.get_color() for x in curves] == list(COLORS[:2])
        for line, model in zip(curves, report.models, strict=True):
            values = points(row.scores[kind].value for row in model.sizes[1:])
            np.testing.assert_array_equal(line.get_ydata(), values)
        bounds = [x.scores[kind].interval for m in report.models for x in m.sizes[1:ALONE]]
        np.testing.assert_allclose(whiskers(axes), [points(x) for x in bounds])
        (missing,) = [x for x in axes.texts if x.get_text() == 'n/a']
        assert missing.get_position()[0] == bins.centres[EMPTY - 1]
        assert axes.get_ylabel() == f'{kind.replace("_", " ")}, %' and axes.get_ylim()[0] == 0
    heights = [x.get_height() for x in bottom.patches]
    assert heights == [x.counts['segments'] for x in report.models[0].sizes[1:]]
    assert bottom.get_ylabel() == 'segments'
    assert bottom.get_xlabel() == 'side of segment (√area), px, log scale'
    assert [x.get_text() for x in figure.legends[0].get_texts()] == ['x', '$y_$']
    caption = figure.get_supxlabel()
    segments = report.models[0].sizes[0].counts['segments']
    assert caption.startswith(f'8 images, {segments} segments; pale bars: 95 % intervals, 40 ')


def test_recall_of_segments_without_bootstrap_in_ranges_that_overlap():
    ranges = segment_ranges('relative_side', dict(low=(0, 0.4), high=(0.2, 2)))
    figure = draw_segments(make_segment_report(('x',), ranges))
    write(figure)
    assert not any(whiskers(axes) for axes in figure.axes)
    assert figure.axes[-1].get_xlabel() == 'side of segment (√area), % of √(image area)'
    assert figure.axes[0].lines[0].get_linestyle() == 'None'
    assert 'pale bars' not in figure.get_supxlabel()
