"""Tables as text and as CSV."""

from mmbiformer.tables import csv_text, format_table


def test_the_first_column_is_left_and_the_others_right():
    lines = format_table(['model', 'ms'], [['swin-t', '1.5'], ['b', '12']]).splitlines()
    assert lines[3:5] == ['| swin-t | 1.5 |', '| b      |  12 |']


def test_csv_tells_a_missing_value_from_a_missing_column():
    text = csv_text(['a', 'b', 'c'], [dict(a=1, b=None), dict(a=2, b=0.5, c='x')])
    assert text == 'a,b,c\n1,n/a,\n2,0.5,x\n'
