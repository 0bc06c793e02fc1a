"""The least time of routed attention on GPUs."""

import pytest

from mmbiformer.benchmark.cases import Case
from mmbiformer.benchmark.floors import Amounts, attention_work, backbone_floors, least_seconds
from mmbiformer.benchmark.report import format_floors


@pytest.mark.parametrize(
    ('size', 's', 'batch', 'forward', 'backward'),
    [((800, 1344), 16, 2, 0.80e-3, 1.61e-3), ((512, 512), 8, 4, 0.28e-3, 0.56e-3)],
    ids=['detection', 'segmentation'],
)
def test_those_worked_out_by_hand(size, s, batch, forward, backward):
    """Of BiFormer-S on an H200, from the rates that the module states."""
    found = backbone_floors('s', size, s, batch, 'H200')
    assert found == pytest.approx((forward, backward), rel=0.01)
    # An H100 reads and writes less in the same time, and computes as much.
    other = backbone_floors('s', size, s, batch, 'H100')
    assert all(1 <= a / b < 1.05 for a, b in zip(other, found, strict=True))


def test_work_of_one_attention():
    # 2 maps of 6 x 4 tokens and 8 channels in 4 regions of 6; each token sees one region.
    forward, backward = attention_work(8, 2, 1, (6, 4), 2, 2)
    scores = 2 * 24 * 6 * 2
    assert forward == (2 * 2 * scores * 4, scores, 2 * 2 * 8 * 6 * 2 * 4, 4 * 2 * 8 * 48)
    assert backward.exponentials == 2 * scores
    assert backward.operations == 3.5 * forward.operations


def test_what_limits_most_decides():
    rates = Amounts(1e6, 1e3, 1e6, 1e6)
    assert least_seconds(Amounts(1e6, 1, 1, 1), rates) == 1
    assert least_seconds(Amounts(1e6, 5e3, 1e6, 1e6), rates) == 5


def test_floors_are_said_to_be_worked_out():
    case = Case('backbone', 'triton', 'training', 's', (800, 1344), 16, 2, 'cuda', 'bf16')
    h100, h200 = format_floors(case).splitlines()
    assert 'H100' in h100
    assert h200 == (
        'floor of all routed attention in bf16 on one H200, worked out and not measured: '
        'forward 0.797 ms, backward 1.60 ms'
    )
    op = Case('op', 'triton', 'training', 's', (800, 1344), 16, 2, 'cuda', 'bf16', stage=2)
    assert 'this attention in bf16 on one H200' in format_floors(op)
    assert 'forward 0.037 ms, backward 0.073 ms' in format_floors(op)
