"""Tables of metrics: what validations and tests found, by size and by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from mmbiformer.tables import MISSING

from .records import RunRecord
from .scores import Scores, highest, known, overall_names


@dataclass
class Table:
    """Texts in rows; the first of each row names it."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def validations(runs: Sequence[RunRecord]) -> list[Table]:
    """The last of each run and the highest of any; no table where no run has one."""
    if not any(run.validations for run in runs):
        return []
    head, rows = ['metric'], []
    for run in runs:
        last = f'{run.unit} {run.validations[-1].step}' if run.validations else 'last'
        head += [_headed(runs, run, last), _headed(runs, run, 'highest')]
    for name in overall_names(runs):
        row = [name]
        for run in runs:
            last = run.validations[-1].metrics.get(name) if run.validations else None
            row.append(_cell(last))
            best = highest(run, name)
            row.append(f'{best[0]:.4g} ({run.unit} {best[1]})' if best else MISSING)
        rows.append(row)
    return [Table('Metrics of the last validation, and the highest of any', head, rows)]


def tests(runs: Sequence[RunRecord]) -> list[Table]:
    """A column for each finished test; no table without one."""
    columns = [(run, test) for run in runs for test in run.tests]
    if not columns:
        return []
    names = [name for name in overall_names(runs) if any(name in x.tested for _, x in columns)]
    head = ['metric', *(_headed(runs, run, test.begun) for run, test in columns)]
    rows = [
        ['checkpoint', *(_checkpoint_name(x.notes.get('checkpoint')) for _, x in columns)],
        *([name, *(_cell(x.tested.get(name)) for _, x in columns)] for name in names),
    ]
    return [Table('Metrics of tests, by when they began', head, rows)]


def score_tables(runs: Sequence[RunRecord], scores: list[Scores], of: str) -> list[Table]:
    """Sizes as they are logged; classes by the first score of the first run, low ones first."""
    kinds = list(dict.fromkeys(kind for one in scores for kind in one))
    keys = list(dict.fromkeys(x for one in scores for cells in one.values() for x in cells))
    if not keys:
        return []
    columns = [(run, one, kind) for kind in kinds for run, one in zip(runs, scores, strict=True)]
    head = [of, *(_headed(runs, run, kind) for run, _, kind in columns)]
    rows = [
        [key, *(_cell(one.get(kind, {}).get(key)) for _, one, kind in columns)] for key in keys
    ]
    if of == 'class':
        first = scores[0].get(kinds[0], {})
        rows.sort(key=lambda row: inf if first.get(row[0]) is None else first[row[0]])
    return [Table(f'Scores of the last evaluation by {of}', head, rows)]


def _headed(runs: Sequence[RunRecord], run: RunRecord, text: str) -> str:
    return text if len(runs) == 1 else f'{run.name}: {text}'


def _cell(value: float | None) -> str:
    value = known(value)
    return MISSING if value is None else f'{value:.4g}'


def _checkpoint_name(path: str | None) -> str:
    return path.rpartition('/')[2] if path else MISSING
