"""What a check of data found, and how it is said in one line."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from mmbiformer.errors import UserError

SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong with data, or worth knowing.

    Attributes:
        is_error (bool): Whether a run must not start; else it is said, and the run goes on.
        place (str): The file or folder.
        what (str): The kind, in words that the examples follow.
        count (int): How many there are.
        examples (list[str]): The first few, each by its name or id and its value.
        remedy (str): What to do.
    """

    is_error: bool
    place: str
    what: str
    count: int
    examples: list[str]
    remedy: str

    def line(self) -> str:
        """The finding as a message."""
        if not self.examples:
            return self.what
        more = self.count - len(self.examples)
        examples = ', '.join(self.examples) + (f' and {more:,} more' if more else '')
        return f"'{self.place}': {self.what}: {examples}; {self.remedy}"

    def record(self) -> dict:
        """The finding as JSON has it."""
        return {**asdict(self), 'line': self.line()}


def find(
    place: str,
    what: str,
    bad: Sequence,
    remedy: str,
    describe: Callable[[Any], str] = str,
    is_error: bool = True,
) -> list[Finding]:
    """One finding of all that is ``bad``, of which ``describe`` puts some in words, or none."""
    if not len(bad):
        return []
    examples = [describe(item) for item in islice(bad, SHOWN)]
    return [Finding(bool(is_error), place, what, len(bad), examples, remedy)]


def refusal(error: UserError) -> Finding:
    """What kept a check from going on, as a finding."""
    return Finding(True, '', str(error), 1, [], '')


def refuse_errors(findings: Iterable[Finding]) -> list[str]:
    """The lines of what is no error.

    Raises:
        UserError: The first error, and how many kinds more there are.
    """
    findings = list(findings)
    errors = [x for x in findings if x.is_error]
    if errors:
        more = f' ({len(errors) - 1} more kinds of errors: tools/check_data.py lists all)'
        raise UserError(errors[0].line() + (more if errors[1:] else ''))
    return [x.line() for x in findings]


def short(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def short_list(names: Iterable[Any], shown: int = 5) -> str:
    """The first of many names, and how many more there are."""
    names = list(map(str, names))
    more = f' and {len(names) - shown:,} more' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the name that is most like another, or nothing."""
    close = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ''
