"""Reads the tables of a text back."""

import re


def tables_of(text):
    """Lines of cells, one list per table."""
    tables = re.findall(r'(?m)(?:^[|+].*\n?)+', text)
    rows = [[x for x in table.splitlines() if x.startswith('|')] for table in tables]
    return [[[y.strip() for y in x.split('|')[1:-1]] for x in table] for table in rows]
