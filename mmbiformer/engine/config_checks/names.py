"""Names that are values: modes, metrics, padding, interpolation."""

import re

from torch import nn

from mmbiformer.stack import DISTRIBUTIONS

from .lookup import nearest
from .words import is_quoted, quoted_by

# Arguments that are free text, by how their names end.
FREE_TEXT = re.compile(
    r'(name|names|prefix|suffix|path|dir|root|file|folder|url|text|title|classes|checkpoint|tmpl'
    r'|palette|img|seg|type|pretrained|imports|from)$'
)
_NAME = re.compile(r'[A-Za-z][\w.-]+')
# Names that the class which gets them does not have in its source.
_SCOPES = {*DISTRIBUTIONS, 'mmbiformer'}
_ELSEWHERE = {
    'default_scope': _SCOPES,
    '_scope_': _SCOPES,
    'layer': {*dir(nn)},
    'log_level': {'DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'},
}
LIKENESS = 0.75


def correct(key: str, value: str, owners: tuple) -> str | None:
    """What a value was to be that is much like a name in the source of the class that gets it.

    None where it is such a name, or unlike all of them: it may be a name of another kind.
    """
    if FREE_TEXT.search(key):
        return None
    known = quoted_by(owners) | _ELSEWHERE.get(key, set())
    if key == 'save_best':  # as coco/bbox_mAP, made of the words of a metric
        return correct_metric(value, known)
    if not _NAME.fullmatch(value) or value in known:
        return None
    close = nearest(value, known, LIKENESS)
    return close[0] if close and not is_quoted(value) else None


def correct_metric(value: str, known: set[str]) -> str | None:
    """The name of a metric, of which each word is one of its source."""
    known = {word for x in known for word in re.findall('[A-Za-z]+', x)}
    for word in re.findall('[A-Za-z]+', value):
        if word not in known and (close := nearest(word, known, LIKENESS)):
            return value.replace(word, close[0])
    return None
