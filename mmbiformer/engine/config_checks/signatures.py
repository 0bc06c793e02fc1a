"""Which keys a class or function takes, those that it passes on to its bases included."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import NamedTuple

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Methods of a dict by which a class takes single keys out of its **kwargs.
_TAKING = ('pop', 'get', 'setdefault')


class Keys(NamedTuple):
    """What a class takes by name; ``is_open`` where it takes other names in ways unseen."""

    names: frozenset[str]
    is_open: bool


@functools.cache
def keys_of(target: Callable) -> Keys:
    """The keys that a part of a config may have, from which ``target`` is called.

    ``**kwargs`` are followed to the next base where they go to ``super().__init__``. Where they go
    elsewhere or nowhere, any key is taken.
    """
    pending = list(inspect.getmro(target)) if inspect.isclass(target) else [target]
    names: set[str] = set()
    while pending:
        owner = pending.pop(0)
        if inspect.isclass(owner) and '__init__' not in vars(owner):
            continue
        if owner is object:  # it takes nothing
            break
        function, own = _called(owner)
        try:
            parameters = list(inspect.signature(function).parameters.values())[own:]
        except (TypeError, ValueError):  # compiled code
            return Keys(frozenset(names), True)
        names |= {x.name for x in parameters if x.kind in _NAMED} | _old_names(function)
        rest = next((x.name for x in parameters if x.kind is x.VAR_KEYWORD), None)
        if rest is None:
            return Keys(frozenset(names), False)
        taken, base = _use_of(function, rest)
        names |= taken
        if base is None:
            return Keys(frozenset(names), True)
        after, name = base.startswith('>'), base.removeprefix('>')
        known = [x.__name__ for x in (owner, *pending)]
        if name in known:
            del pending[: known.index(name) - (not after)]
    return Keys(frozenset(names), False)


def _called(owner: Callable) -> tuple[Callable, int]:
    """What is called in the end, and how many of its first arguments no config gives."""
    return (vars(owner)['__init__'], 1) if inspect.isclass(owner) else (owner, 0)


def _old_names(function: Callable) -> set[str]:
    """Names that a decorator of mmcv replaces by newer ones, from a dict in its closure."""
    cells = [x.cell_contents for x in getattr(function, '__closure__', None) or ()]
    return {key for x in cells if isinstance(x, dict) for key in x if isinstance(key, str)}


def _use_of(function: Callable, rest: str) -> tuple[set[str], str | None]:
    """The keys that a function takes out of its ``**rest``, and the base that the others go to.

    The base is '' for the next one, a name, or '>' and the name of the one before it; None where
    others go elsewhere.
    """
    function = inspect.unwrap(function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return set(), None
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    taken: set[str] = set()
    bases: set[str | None] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or node.id != rest or isinstance(node.ctx, ast.Store):
            continue
        parent = parents[node]
        call = parents.get(parent)
        if isinstance(parent, ast.Dict) and _is_stored_as(call, rest):
            continue  # kwargs = {'key': 1, **kwargs}
        if isinstance(parent, ast.keyword) and parent.arg is None:
            bases.add(_base_of(call))
        elif isinstance(parent, ast.Attribute) and isinstance(call, ast.Call):
            if parent.attr in _TAKING and call.args and isinstance(call.args[0], ast.Constant):
                taken.add(call.args[0].value)
        elif isinstance(parent, ast.Subscript) and isinstance(parent.slice, ast.Constant):
            taken.add(parent.slice.value)
        elif isinstance(parent, ast.Compare) and isinstance(parent.left, ast.Constant):
            taken.add(parent.left.value)
        else:
            bases.add(None)
    return taken, bases.pop() if len(bases) == 1 else None


def _is_stored_as(node: ast.AST | None, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(x, ast.Name) and x.id == name for x in node.targets
    )


def _base_of(call: ast.AST | None) -> str | None:
    """Whose constructor a call is: '' of the next base, a base's by its name, or None."""
    match call:
        case ast.Call(func=ast.Attribute(attr='__init__', value=ast.Name(id=name))):
            return name
        case ast.Call(
            func=ast.Attribute(
                attr='__init__', value=ast.Call(func=ast.Name(id='super'), args=arguments)
            )
        ):
            # super(X, self) is what follows X
            return f'>{arguments[0].id}' if arguments else ''
    return None
