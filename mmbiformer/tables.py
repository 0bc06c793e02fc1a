"""Tables for people, as text, and for programs, as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

from prettytable import PrettyTable

MISSING = 'n/a'  # what is shown of a value that does not exist


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A framed table; the first column is aligned to the left, the others to the right."""
    table = PrettyTable(list(head), align='r')
    table.align[head[0]] = 'l'
    table.add_rows([list(row) for row in rows])
    return table.get_string()


def csv_text(columns: Sequence[str], rows: Iterable[dict]) -> str:
    """A head, and a line per dict: 'n/a' for None, nothing for a column that a dict lacks."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({key: MISSING if x is None else x for key, x in row.items()})
    return file.getvalue()
