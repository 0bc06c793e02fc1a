"""Misspells every key and name of the shipped configs once, and counts what the check refuses.

python tests/helpers/config_mutations.py [--count 300] [--seed 0]

A leaf that several configs share (the same path, class and value) is misspelt in one of them.
Nothing is built and no data are read, but for what is in a model and passes the check: it is built
without values, as a class refuses what is a value of its own.
"""

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from zoo import CONFIGS, read

from mmbiformer.engine.config_checks.keys import find_mistakes
from mmbiformer.engine.config_checks.names import FREE_TEXT
from mmbiformer.engine.config_checks.places import FREE_KEYS, RUNNER_KEYS

KEY, CLASS_KEY, CLASS, NAME = (
    'key of a dict without class',
    'key of a class',
    'name of a class',
    'other name',
)
TEXT = 'free text, paths and names of the user: left out'


class Leaf(NamedTuple):
    """A key, or with ``is_value`` a string, at a path of a config."""

    config: str
    path: tuple
    kind: str
    text: str
    is_value: bool


def leaves(config: str) -> Iterator[Leaf]:
    """All keys and strings that the Runner gets of a config."""
    content = read(config).to_dict()
    for key in [x for x in content if x in RUNNER_KEYS]:
        yield Leaf(config, (key,), KEY, key, False)
        yield from _below(config, content[key], (key,))


def _below(config: str, node: object, path: tuple) -> Iterator[Leaf]:
    if isinstance(node, Mapping):
        kind = CLASS_KEY if 'type' in node else KEY
        for key, child in node.items():
            free = path[-1] in FREE_KEYS
            yield Leaf(config, (*path, key), TEXT if free else kind, key, False)
            yield from _below(config, child, (*path, key))
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _below(config, child, (*path, i))
    elif isinstance(node, str):
        key = next(x for x in reversed(path) if isinstance(x, str))
        kind = CLASS if key in ('type', 'constructor') else NAME
        if kind == NAME and (FREE_TEXT.search(key) or re.search(r'[ /]|\.\w+$', node)):
            kind = TEXT
        yield Leaf(config, path, kind, node, True)


def distinct(configs: list[str]) -> list[Leaf]:
    """The leaves of configs, one of those that have path, kind and text in common."""
    found = {}
    for config in configs:
        for leaf in leaves(config):
            place = tuple(x for x in leaf.path if isinstance(x, str))
            found.setdefault((place, leaf.kind, leaf.text), leaf)
    return list(found.values())


def misspell(text: str, rng: random.Random) -> str:
    """A word without one of its letters, or with one of them twice."""
    places = [i for i, x in enumerate(text) if x.isalpha() and i >= text.rfind('.') + 1]
    i = rng.choice(places)
    if rng.random() < 0.5 and len(places) > 1:
        word = text[:i] + text[i + 1 :]
        if word != text:
            return word
    return text[: i + 1] + text[i:]


def changed(leaf: Leaf, wrong: str) -> dict:
    """The config with a leaf misspelt."""
    content = read(leaf.config).to_dict()
    node = content
    for key in leaf.path[:-1]:
        child = list(node[key]) if isinstance(node[key], tuple) else node[key]
        node[key], node = child, child
    last = leaf.path[-1]
    if leaf.is_value:
        node[last] = wrong
    else:
        items = [(wrong if key == last else key, value) for key, value in node.items()]
        node.clear()
        node.update(items)
    return content


def is_refused(leaf: Leaf, wrong: str) -> bool:
    """Whether the check refuses the config with a leaf misspelt, and names what is wrong."""
    return any(wrong in line for line in find_mistakes(changed(leaf, wrong)))


def is_built(leaf: Leaf, wrong: str) -> bool:
    """Whether mmengine builds the model of the config with a leaf misspelt, without values."""
    cfg = ConfigDict(changed(leaf, wrong))
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            MODELS.build(cfg.model)
    except Exception as error:  # classes refuse values in many ways
        return wrong not in str(error)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, help='so many at random instead of all')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    start = time.perf_counter()
    found = distinct(list(CONFIGS))
    total = sum(1 for config in CONFIGS for _ in leaves(config))
    print(f'{len(CONFIGS)} configs, {total:,} leaves, {len(found):,} distinct')
    chosen = rng.sample(found, min(args.count or len(found), len(found)))
    counts, accepted = Counter(), []
    for leaf in chosen:
        if leaf.kind == TEXT or not re.search('[A-Za-z]', leaf.text):
            counts[TEXT, 'left out'] += 1
            continue
        wrong = misspell(leaf.text, rng)
        if is_refused(leaf, wrong):
            how = 'refused'
        elif leaf.path[0] == 'model' and not is_built(leaf, wrong):
            how = 'refused when built'
        else:
            how = 'accepted'
            accepted.append((leaf, wrong))
        counts[leaf.kind, how] += 1
    for (kind, how), count in sorted(counts.items()):
        print(f'{count:6} {how:18} {kind}')
    for leaf, wrong in accepted:
        print(f"accepted: {'.'.join(map(str, leaf.path))}: '{wrong}' ({leaf.config})")
    print(f'{time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
