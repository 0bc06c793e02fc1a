"""Which words the source of a class speaks of: keys of its dicts, and names that are values.

A dict without a class has no signature. Its keys are read somewhere in the source of the class
that gets it, as an attribute, as a string, or as the name of an argument.
"""

import ast
import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

# Classes of these hand keys on to functions of any of them.
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmbiformer')
# Of Python and PyTorch, whose words are too many to tell a mistake by.
_OTHERS = ('builtins', 'abc', 'typing', 'collections', 'torch')
_QUOTED = re.compile(r"""['"`]([A-Za-z][\w.-]*)['"`]""")


def words_of(targets: Iterable[Callable]) -> set[str]:
    """What the modules of classes and of their bases use as names of keys."""
    return set().union(*(_words(module) for module in _modules(targets)))


def quoted_by(targets: Iterable[Callable]) -> set[str]:
    """What stands in quotes in the modules of classes and their bases, in docstrings as well."""
    return set().union(*(_quoted(module) for module in _modules(targets)))


def is_spoken_of(word: str) -> bool:
    """Whether the source of mm has a word anywhere: a key that it has nowhere is read by none."""
    return _is_in_mm(word, rf'\b{re.escape(word)}\b')


def is_quoted(name: str) -> bool:
    """Whether the source of mm has a name in quotes anywhere."""
    return _is_in_mm(name, rf"""(['"`]){re.escape(name)}\1""")


def is_read(key: str) -> bool:
    """Whether the source of mm has a key in quotes or as an attribute anywhere."""
    return _is_in_mm(key, rf"""(['"`]){re.escape(key)}\1|\.{re.escape(key)}\b""")


def _is_in_mm(word: str, pattern: str) -> bool:
    # The word itself is found much faster than the pattern.
    return any(word in x and re.search(pattern, x) for x in map(_package_text, PACKAGES))


def is_of_mm(target: Callable) -> bool:
    """Whether a class is of an mm package, or of this one."""
    return (getattr(target, '__module__', None) or '').partition('.')[0] in PACKAGES


def _modules(targets: Iterable[Callable]) -> set[str]:
    kinds = {
        kind
        for target in targets
        for kind in (inspect.getmro(target) if inspect.isclass(target) else (target,))
    }
    names = {getattr(kind, '__module__', None) or '' for kind in kinds}
    return {name for name in names if name.partition('.')[0] not in _OTHERS}


@functools.cache
def _text(module: str) -> str:
    file = getattr(sys.modules.get(module), '__file__', None) or ''
    is_source = file.endswith('.py') and Path(file).is_file()
    return Path(file).read_text(encoding='utf-8') if is_source else ''


@functools.cache
def _package_text(package: str) -> str:
    """The source of all modules of a package, '' where it is not installed."""
    spec = importlib.util.find_spec(package)
    folders = [Path(x) for x in (spec.submodule_search_locations if spec else ())]
    paths = [
        x for folder in folders for x in sorted(folder.rglob('*.py')) if '.mim' not in x.parts
    ]
    return '\n'.join(x.read_text(encoding='utf-8') for x in paths)


@functools.cache
def _words(module: str) -> frozenset[str]:
    words = set()
    for node in ast.walk(ast.parse(_text(module))):
        if isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            words.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return frozenset(words)


@functools.cache
def _quoted(module: str) -> frozenset[str]:
    return frozenset(_QUOTED.findall(_text(module)))
