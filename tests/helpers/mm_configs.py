"""Configs of mmdet, mmseg and mmpretrain themselves, which the check of configs must not refuse.

python tests/helpers/mm_configs.py [--count 50] [--packages mmdet mmseg]
"""

import argparse
import importlib.util
import random
import time
from pathlib import Path

from mmengine.config import Config

from mmbiformer.engine.config_checks.keys import find_mistakes

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')


def configs_of(package: str) -> list[Path]:
    """The configs that are installed with a package, but for the parts of others."""
    folder = Path(importlib.util.find_spec(package).origin).parent / '.mim/configs'
    return [x for x in sorted(folder.rglob('*.py')) if '_base_' not in x.parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, help='so many of each at random instead of all')
    parser.add_argument('--packages', nargs='+', default=PACKAGES)
    args = parser.parse_args()
    for package in args.packages:
        paths, start = configs_of(package), time.perf_counter()
        paths = random.Random(0).sample(paths, min(args.count or len(paths), len(paths)))
        unread, refused = [], 0
        for path in paths:
            try:
                cfg = Config.fromfile(path)
            except Exception as error:  # of whatever kind: they are not ours
                unread.append(f'{path.name}: {str(error)[:100]}')
                continue
            if 'model' not in cfg:
                unread.append(f'{path.name}: no model')
                continue
            cfg.setdefault('default_scope', package)
            if mistakes := find_mistakes(cfg):
                refused += 1
                print(f'refused: {path.parent.name}/{path.name}', *mistakes[:4], sep='\n    ')
        read = len(paths) - len(unread)
        print(
            f'{package}: {read} of {len(paths)} configs can be read, {refused} are refused, '
            f'{time.perf_counter() - start:.0f} s',
            *unread[:5],
            sep='\n  ',
        )


if __name__ == '__main__':
    main()
