"""The options of the tools that report by size."""

from argparse import ArgumentParser

import pytest

from mmbiformer.errors import UserError
from mmbiformer.evaluation.size_options import add_size_options, name_results, read_size_options
from mmbiformer.evaluation.sizes import size_ranges


def test_names_of_files():
    assert list(name_results(['a/swin.bbox.json', 'b/biformer.json'])) == ['swin', 'biformer']
    assert list(name_results(['a/best.segm.json', 'b/best.segm.json'])) == ['a/best', 'b/best']
    assert list(name_results(['a/v1.2', 'b/'])) == ['v1.2', 'b']
    deep = name_results(['one/val/x.json', 'two/val/x.json', 'y.json'])
    assert list(deep) == ['one/val/x', 'two/val/x', 'y']
    assert [str(x) for x in deep.values()] == ['one/val/x.json', 'two/val/x.json', 'y.json']
    assert list(name_results(['best.json', 'a/best.json']))[1] == 'a/best'
    for other in ('a/x.json', 'a/x.segm.json'):
        with pytest.raises(UserError, match=r'given twice, or of one name: a/x\.json a/x\.'):
            name_results(['a/x.json', other])


def read(*words):
    parser = ArgumentParser()
    add_size_options(parser, 'out')
    return read_size_options(parser.parse_args(words))


def test_options():
    ranges, bootstrap = read()
    assert ranges == size_ranges()
    assert (bootstrap.num_resamples, bootstrap.seed) == (1000, 0)
    ranges, bootstrap = read(
        *('--measure', 'relative_side', '--bootstrap', '0'),
        *('--ranges', 'few=0-0.1', 'rest=0.1-'),
    )
    assert ranges == size_ranges('relative_side', dict(few=(0, 0.1), rest=(0.1, float('inf'))))
    assert bootstrap is None
    assert read('--bootstrap', '100', '--seed', '3')[1].seed == 3


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--ranges', 'tiny'), "--ranges 'tiny': write NAME=LOW-HIGH"),
        (('--ranges', 'tiny=4'), 'write NAME=LOW-HIGH'),
        (('--ranges', 'a=0-8', 'a=8-16'), "--ranges names 'a' twice"),
        (('--ranges', 'tiny=a-b'), 'write NAME=LOW-HIGH'),
        (('--ranges', '=1-2'), 'write NAME=LOW-HIGH'),
        (('--ranges', 'tiny=9-3'), "size range 'tiny' is .9.0, 3.0.: give"),
        (('--ranges', 'small=0-3'), "size range 'small' has the name of one of COCO's own"),
        (('--bootstrap', '-1'), '--bootstrap -1: give 100 or more'),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(UserError, match=message):
        read(*words)
