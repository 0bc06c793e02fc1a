"""The figure that every picture begins with."""

from mmbiformer.figures import new_figure


def test_panels_come_row_by_row(tmp_path):
    figure, axes = new_figure((4, 3), 2, 3, sharey=True)
    assert len(axes) == 6
    assert [x.get_subplotspec().rowspan.start for x in axes] == [0, 0, 0, 1, 1, 1]
    figure.savefig(tmp_path / 'empty.png')
