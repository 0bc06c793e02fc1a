"""A wrong argument of an attention is one line that names it, its value and the remedy."""

import pytest

from mmbiformer import rivals

WRONG = {
    'heads of axial': (
        rivals.AxialAttention,
        (32, 3, 'row'),
        'num_heads=3 does not divide dim=32',
    ),
    'axis': (
        rivals.AxialAttention,
        (32, 4, 'x'),
        r"axis='x' is unknown: choose from row, column$",
    ),
    'heads of windows': (rivals.ShiftedWindowAttention, (32, 0, True), 'num_heads=0 does not'),
    'heads of groups': (rivals.LocallyGroupedAttention, (32, 5), 'num_heads=5 does not divide'),
    'heads of keys': (rivals.SubsampledAttention, (32, 5, 2), 'num_heads=5 .*: choose a divisor$'),
    'width of criss-cross': (rivals.CrissCrossAttention, (20,), 'dim=20 must be a multiple of 8:'),
    'odd heads': (
        rivals.CrossShapedWindowAttention,
        (33, 3, 1),
        'num_heads=3 must be even: half of the heads attend to rows$',
    ),
    'odd head width': (
        rivals.SlidingWindowAttention,
        (24, 8),
        'num_heads=8 of dim=24 leaves heads of 3 channels: choose one that leaves an even number',
    ),
    'heads of sliding windows': (
        rivals.SlidingWindowAttention,
        (20, 8),
        'num_heads=8 does not divide dim=20: choose a divisor$',
    ),
    'stripe': (
        rivals.CrossShapedWindowAttention,
        (32, 4, 0),
        'stripe=0 must be an integer from 1 on$',
    ),
    'ratio': (rivals.SubsampledAttention, (32, 4, -3), 'ratio=-3 must be an integer from 1 on$'),
    'table': (
        rivals.DeformableAttention,
        (32, 4, 0),
        'table_side=0 must be an integer from 1 on$',
    ),
    'heads without a group': (
        rivals.DeformableAttention,
        (32, 2, 7),
        'num_heads=2 must be a multiple of 4, the heads that share points: choose a wider stage',
    ),
}


@pytest.mark.parametrize(('kind', 'args', 'message'), WRONG.values(), ids=WRONG)
def test_it_is_named(kind, args, message):
    with pytest.raises(ValueError, match=message):
        kind(*args)
