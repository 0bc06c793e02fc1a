"""From the name of a class in a config to the class, and to the names most like it."""

import contextlib
import difflib
import functools
import importlib
from collections.abc import Callable, Iterable, Sequence

from mmengine import registry as roots
from mmengine.registry import Registry

from mmbiformer.registry import SCOPE

# Where mm looks for what stands within a part, after the registry of the part itself.
WITHIN = (
    *(roots.MODELS, roots.TASK_UTILS, roots.TRANSFORMS, roots.DATASETS, roots.METRICS),
    *(roots.WEIGHT_INITIALIZERS, roots.OPTIMIZERS, roots.VISBACKENDS, roots.HOOKS),
    *(roots.FUNCTIONS, roots.DATA_SAMPLERS, roots.MODEL_WRAPPERS),
)
SHOWN = 5


def find_class(kind: str, registries: Iterable[Registry], scope: str) -> Callable | None:
    """What a name in a config stands for, looked up as building it would be.

    Args:
        kind (str): The name.
        registries: mmengine's root registries, in the order in which they are asked.
        scope: The default scope of the config.
    """
    for registry in registries:
        try:
            found = _in_scope(registry, scope).get(kind)
        except RuntimeError:  # mmengine's, of what is no name at all
            found = None
        if callable(found):
            return found
    return None


def registries_within(scope: str) -> list[Registry]:
    """Where a scope looks for what stands within a part; some have registries of their own."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module(f'{scope}.registry')
        own = [x for x in vars(module).values() if isinstance(x, Registry) and x.parent is None]
        return [*WITHIN, *own]
    return [*WITHIN]


def _in_scope(registry: Registry, scope: str) -> Registry:
    """The registry of a scope below one of mmengine's, which mmengine would warn to be missing."""
    with contextlib.suppress(ImportError):
        importlib.import_module(f'{scope}.registry')
    return registry.children.get(scope, registry)


@functools.cache
def operators() -> dict[str, Callable]:
    """mmcv's operators, which heads and extractors name without a registry: nms, RoIAlign."""
    try:
        return {k: v for k, v in vars(importlib.import_module('mmcv.ops')).items() if callable(v)}
    except ImportError:
        return {}


def names_in(registries: Sequence[Registry], scope: str) -> dict[str, str]:
    """The names that registries have in a scope and in mmengine, by the names without scopes.

    Those of this package, which configs of any scope name with the prefix, are there as well.
    """
    names = {}
    for registry in registries:
        own = _in_scope(registry, scope)
        names.update({x: x for x in (*own.module_dict, *registry.module_dict)})
        if (ours := _in_scope(registry, SCOPE)) is not registry:
            names.update({x: f'{SCOPE}.{x}' for x in ours.module_dict if x not in names})
    return names


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The names that are most like another, the most like it first, five at most."""
    known = {x.lower(): x for x in known if x.lower() != name.lower()}
    close = difflib.get_close_matches(name.lower(), known, n=SHOWN, cutoff=cutoff)
    return [known[x] for x in close]


def suggest(name: str, known: Iterable[str]) -> str:
    """A question with the most similar name, or a few of the known ones, and their number."""
    known = sorted(known)
    if close := nearest(name, known):
        return f"did you mean '{close[0]}'?"
    if not known:
        return 'leave it out'
    more = f' and {len(known) - SHOWN} more' if len(known) > SHOWN else ''
    return f'known are {", ".join(known[:SHOWN])}{more}'
