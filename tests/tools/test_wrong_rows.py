"""A sample of many wrong inputs, each of which ends in one line; tests/helpers/wrong_inputs.py."""

from wrong_inputs import ROWS, run_all

STEP = 20


def test_rows_are_many_and_distinct() -> None:
    assert len({(x.option, x.config, x.tool) for x in ROWS}) == len(ROWS) >= 100


def test_a_sample_of_wrong_inputs_ends_in_one_line(tmp_path) -> None:
    # With what is built as the run starts: an optimizer.
    sample = (*ROWS[::STEP], *(x for x in ROWS if x.option.endswith('.lr=-1')))
    wrong = {row.option: what for row, what, _ in run_all(sample, tmp_path) if what}
    assert not wrong
