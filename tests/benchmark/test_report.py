"""Rows become tables: ratios, and what could not be measured."""

from text_tables import tables_of

from mmbiformer.benchmark.cases import Case
from mmbiformer.benchmark.groups import Row, measure_group
from mmbiformer.benchmark.report import format_group, three_digits


def row(model: str, samples: list[float], **found) -> Row:
    case = Case('backbone', model, 'training', 's', (512, 512), 8, 2, 'cpu', 'fp32')
    return Row(case, samples, flops=60e9, **found)


def test_a_group_as_a_table() -> None:
    rows = [
        row('official-style', [3.0, 3.0, 9.0], peak_bytes=5_000_000_000, saved_bytes=1_000_000),
        row('reference', [1.5, 0.6, 0.5], peak_bytes=10_000_000, saved_bytes=7_000_000),
        row('swin-t', [0.3, 0.2, 0.4], peak_bytes=20_000_000, saved_bytes=8_000_000),
        row('resnet-50', [], problems=['MemoryError: no room']),
    ]
    text = format_group(rows, matmul=200.0)
    ((head, official, reference, _, resnet),) = tables_of(text)
    assert head[0] == 'model'
    assert official[-3:] == ['1', '1.00 x', '10.00']
    # 0.6 s: 2 images, 60 GFLOP at 100 GFLOP/s, five times as fast, twice Swin-T's time.
    assert reference == [
        *('reference', '600', '500-1500', '3.33', '60.0', '100', '50%', '10', '7'),
        *('5.00 x', '2.00'),
    ]
    assert resnet[:2] == ['resnet-50', 'n/a']
    *lines, problem = text.splitlines()
    assert problem == 'resnet-50: n/a: MemoryError: no room'
    assert len({len(x) for x in lines}) == 1


def test_three_digits() -> None:
    values = [1234.5, 123.4, 12.34, 1.234, 0.1234]
    assert [three_digits(x) for x in values] == ['1234', '123', '12.3', '1.23', '0.123']


def test_a_case_that_cannot_be_built_is_a_row_that_says_why() -> None:
    good, bad = (
        Case('backbone', 'reference', 'training', 't', (32, 32), factor, 1, 'cpu', 'fp32')
        for factor in (4, 2)
    )
    found = {}
    for case in (good, bad):
        (found[case.partition_factor],) = measure_group([case], 1, lambda line: None)
    assert len(found[4].samples) == 1 and not found[4].problems
    assert found[4].peak_bytes > found[4].saved_bytes > 1_000_000
    assert not found[2].samples and found[2].seconds is None
    (problem,) = found[2].problems
    assert 'exceeds the 4 regions of partition_factor=2' in problem


def test_what_goes_wrong_in_every_measurement_is_said_once() -> None:
    case = Case('op', 'none', 'inference', 't', (32, 32), 4, 1, 'cpu', 'fp32', stage=0)
    (row,) = measure_group([case], 1, lambda line: None)
    (problem,) = row.problems
    assert "backend 'none' is unknown" in problem
