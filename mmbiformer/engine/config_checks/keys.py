"""Keys and class names of a config that nothing knows."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from mmbiformer.errors import UserError

from ..data_checks.findings import short, short_list
from .lookup import find_class, names_in, nearest, operators, registries_within, suggest
from .names import correct
from .places import EVALUATOR, FOREIGN, FREE_KEYS, PLACES, RUNNER_KEYS, Place
from .signatures import keys_of
from .words import is_of_mm, is_quoted, is_read, is_spoken_of, quoted_by, words_of

Owners = tuple[Callable, ...]
# How like a known word another must be to be taken for it; at the top of a file, which has
# variables of its own, more so: train_pipeline is no tta_pipeline.
LIKENESS, TOP_LIKENESS = 0.75, 0.885
# Dicts that mm's models read themselves.
_HANDED_ON = re.compile(r'model\.(train|test)_cfg\b')


def check_config(cfg: Config) -> None:
    """Refuse a config with keys or names of classes that nothing knows.

    Nothing is built, and no data are read.

    Raises:
        UserError: The first mistake with its path, value and remedy, and where the others are.
    """
    mistakes = find_mistakes(cfg)
    if mistakes:
        others = [re.split('[=:]', x)[0] for x in mistakes[1:]]
        more = f' ({len(others)} more mistakes: {short_list(others)})' if others else ''
        raise UserError(mistakes[0] + more)


def find_mistakes(cfg: Mapping) -> list[str]:
    """One line for each key or name of a config that is a mistake: its path, value and remedy."""
    return list(_Walk(cfg).top())


class _Walk:
    """Goes through a config from the top to the leaves."""

    def __init__(self, cfg: Mapping) -> None:
        self.cfg = cfg
        self.scope = cfg.get('default_scope') or 'mmengine'
        self.found: dict[tuple, Callable | None] = {}
        self.within = registries_within(self.scope)
        # Detectors hand train_cfg and test_cfg on to their parts.
        self.parts_of_model = tuple(self._classes(cfg.get('model'), 'model'))

    def top(self) -> Iterator[str]:
        if mistakes := list(self.visit(self.scope, 'default_scope', (Runner,))):
            yield from mistakes  # other mistakes would be of it
            return
        for key, value in self.cfg.items():
            if key in RUNNER_KEYS:
                yield from self.visit(value, key, (Runner,))
            elif close := nearest(key, RUNNER_KEYS, TOP_LIKENESS):
                yield f"{key}: nothing reads a '{key}' of a config: did you mean '{close[0]}'?"

    def visit(self, value: object, path: str, owners: Owners) -> Iterator[str]:
        """What stands at a path, in the argument of one of these classes."""
        key = _key(path)
        if isinstance(value, Mapping):
            is_evaluator = key in ('val_evaluator', 'test_evaluator') and 'metrics' in value
            place = EVALUATOR if is_evaluator else _place(path)
            if place.registry is not None and 'type' in value:
                yield from self.part(value, path, place, owners)
            elif place.default is not None:
                yield from self.call(place.default, value, path, place.extra, owners)
            elif 'type' in value:
                yield from self.part(value, path, place, owners)
            else:
                yield from self.free(value, path, owners)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for i, item in enumerate(value):
                yield from self.visit(item, f'{path}.{i}', owners)
        elif isinstance(value, str):
            if key == 'save_best':
                owners = tuple(self._classes(self.cfg.get('val_evaluator'), 'val_evaluator'))
            if meant := correct(key, value, owners):
                said = f'{_said(owners)} knows no such name'
                yield f"{path}={value!r}: {said}: did you mean '{meant}'?"

    def part(self, value: Mapping, path: str, place: Place, owners: Owners) -> Iterator[str]:
        """A dict with the name of its class."""
        kind = value['type']
        target = self._find(kind, place.registry)
        if target is None and place.registry is None and is_quoted(str(kind)):
            # A class may name parts of its own.
            yield from self.free({x: value[x] for x in value if x != 'type'}, path, owners)
        elif target is None:
            known = names_in([place.registry] if place.registry else self.within, self.scope)
            known |= {} if place.registry else {x: x for x in operators()}
            close = nearest(str(kind).rpartition('.')[2], known)
            if close or is_of_mm(owners[0]):
                what = place.registry.name if place.registry else 'class'
                listed = ', '.join(known[x] for x in close)
                remedy = f'nearest are {listed}' if close else 'install what has it'
                yield f'{path}.type={kind!r}: no {what} of the {len(known)} known: {remedy}'
        else:
            extra = place.extra | {'type', '_scope_'}
            yield from self.call(target, value, path, extra, owners)

    def call(
        self, target: Callable, value: Mapping, path: str, extra: frozenset, owners: Owners
    ) -> Iterator[str]:
        """A dict that a class or function is called with."""
        keys = keys_of(target)
        within = (target,)
        if path == 'optim_wrapper' and (kind := value.get('constructor')):
            constructor = self._find(kind, roots.OPTIM_WRAPPER_CONSTRUCTORS)
            if constructor is None:
                known = names_in([roots.OPTIM_WRAPPER_CONSTRUCTORS], self.scope)
                yield f'{path}.constructor={kind!r} is unknown: {suggest(kind, known)}'
                return
            within += (constructor,)
        elif path == 'optim_wrapper':
            within += (roots.OPTIM_WRAPPER_CONSTRUCTORS.get('DefaultOptimWrapperConstructor'),)
        taken = keys.names | extra
        stands_in = keys.is_open and not keys.names  # for what is not installed
        for key, child in value.items():
            if (_said((target,)), key) in FOREIGN or stands_in:
                continue
            if key not in taken and (hint := self._unknown(str(key), target, owners, taken)):
                said = f"{_said((target,))} takes no '{key}': {hint}"
                yield f'{path}.{key}={short(child)}: {said}'
            elif key != 'type':
                yield from self.visit(child, f'{path}.{key}', within)

    def _unknown(
        self, key: str, target: Callable, owners: Owners, taken: frozenset[str]
    ) -> str | None:
        """What to do about a key that a class does not name, or None where it may take it."""
        if owners != (Runner,) and key in quoted_by(owners):
            return None  # they take it out before the class gets the others
        if not keys_of(target).is_open:
            return suggest(key, taken - {'_scope_'})
        # Where it hands this on to cannot be seen.
        return _misspelt(key, taken, (target,), True) if is_of_mm(target) else None

    def free(self, value: Mapping, path: str, owners: Owners) -> Iterator[str]:
        """A dict without a class: its keys are among the words of the class that gets it."""
        if path.startswith('model.') or path == 'data_preprocessor':
            owners += self.parts_of_model
        if _key(path) == 'data_preprocessor':  # its class is the default of the model's
            names = [x for x in quoted_by(owners) if x.endswith('Preprocessor')]
            owners += tuple(filter(None, (self._find(x, roots.MODELS) for x in names)))
        known = {'visualization'} if path == 'default_hooks' else set()
        strict = all(map(is_of_mm, owners)) and bool(_HANDED_ON.match(path))
        for key, child in value.items():
            hint = None
            if 'type' not in value and nearest(str(key), ['type'], LIKENESS):
                hint = "did you mean 'type'?"
            elif _key(path) not in FREE_KEYS:
                hint = _misspelt(key, known, owners, strict)
            if hint:
                yield f"{path}.{key}={short(child)}: {_said(owners)} reads no '{key}': {hint}"
                continue
            yield from self.visit(child, f'{path}.{key}', owners)

    def _find(self, kind: object, registry: Registry | None) -> Callable | None:
        if not isinstance(kind, str):  # the class itself, in a pure Python config
            return kind if callable(kind) else None
        place = (kind, registry and registry.name)
        if place not in self.found:
            found = find_class(kind, [registry] if registry else self.within, self.scope)
            self.found[place] = found or (None if registry else operators().get(kind))
        return self.found[place]

    def _classes(self, value: object, path: str) -> Iterator[Callable]:
        """The classes that a part of a config and all parts within it name."""
        if isinstance(value, Mapping):
            if 'type' in value and (kind := self._find(value['type'], _place(path).registry)):
                yield kind
            for key, child in value.items():
                yield from self._classes(child, f'{path}.{key}')
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for item in value:
                yield from self._classes(item, path)


def _misspelt(key: object, taken: Set[str], owners: Owners, strict: bool = False) -> str | None:
    """What to do about a key of which no source speaks; None for others.

    Classes may hand it on to functions of any package. One that is much like a key that the class
    itself speaks of must be read somewhere in mm; with ``strict``, any other must be a word there.
    """
    known = words_of(owners) | taken
    if not isinstance(key, str) or key in known:
        return None
    if close := nearest(key, filter(str.isidentifier, known), LIKENESS):
        return None if is_read(key) else f"did you mean '{close[0]}'?"
    return 'no source of mm has this word' if strict and not is_spoken_of(key) else None


def _key(path: str) -> str:
    """The last key of a path that is no number."""
    return next(x for x in reversed(path.split('.')) if not x.isdigit())


def _place(path: str) -> Place:
    plain = '.'.join(x for x in path.split('.') if not x.isdigit())
    names = (plain, f'{plain.rpartition(".")[0]}.*', f'*.{_key(path)}')
    return next((PLACES[x] for x in names if x in PLACES), Place())


def _said(owners: Owners) -> str:
    return getattr(owners[0], '__name__', str(owners[0]))
