"""Options of the tools that report by size."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from mmbiformer.errors import UserError

from .resampling import Bootstrap
from .sizes import MEASURES, SizeRange, size_ranges


def name_results(paths: Sequence[str | Path]) -> dict[str, Path]:
    """A name for each file or folder: its stem, behind as many folders as tell it from others."""
    paths = [Path(x) for x in paths]
    # Without mmdet's endings of result files.
    whole = [x.absolute() for x in paths]
    parts = [x.with_name(re.sub(r'(\.bbox|\.segm)?\.json$', '', x.name)).parts for x in whole]
    if len(set(parts)) < len(parts):
        raise UserError(f'given twice, or of one name: {" ".join(map(str, paths))}')
    names = {}
    for own, path in zip(parts, paths, strict=True):
        depth = 1
        while depth < len(own) and sum(x[-depth:] == own[-depth:] for x in parts) > 1:
            depth += 1
        names['/'.join(own[-depth:])] = path
    return names


def _parse_ranges(measure: str, texts: Sequence[str] | None) -> tuple[SizeRange, ...]:
    """Of ``NAME=LOW-HIGH``, or ``NAME=LOW-`` without end."""
    ranges = {}
    for text in texts or ():
        name, _, bounds = text.partition('=')
        low, dash, high = bounds.partition('-')
        if name in ranges:
            raise UserError(f"--ranges names '{name}' twice: rename one")
        try:
            ranges[name] = float(low), float(high or 'inf')
        except ValueError:
            dash = ''
        if not name or not dash:
            raise UserError(f"--ranges '{text}': write NAME=LOW-HIGH, as in tiny=0-16")
    try:
        return size_ranges(measure, ranges or None)
    except ValueError as error:
        raise UserError(str(error)) from error


def add_size_options(parser: ArgumentParser, out_dir: str) -> None:
    """Options of every tool that reports by size."""
    parser.add_argument(
        '--measure', choices=MEASURES, default='side', help='what sizes are in (side, in pixels)'
    )
    parser.add_argument(
        '--ranges', nargs='+', help='NAME=LOW-HIGH in that measure, HIGH not included; or octaves'
    )
    parser.add_argument('--bootstrap', type=int, default=1000, help='resamples; 0 for none (1000)')
    parser.add_argument('--seed', type=int, default=0, help='of the resamples (0)')
    parser.add_argument('--out-dir', default=out_dir, help=f'where the report goes ({out_dir})')


def read_size_options(args: Namespace) -> tuple[tuple[SizeRange, ...], Bootstrap | None]:
    """What the options of :func:`add_size_options` ask for.

    Raises:
        UserError: If a range or a number is none, or the folder cannot be one.
    """
    if Path(args.out_dir).is_file():
        raise UserError(f"--out-dir '{args.out_dir}' is a file: name a folder")
    if args.seed < 0:
        raise UserError(f'--seed {args.seed}: give a number from 0 on')
    if args.bootstrap and args.bootstrap < 100:
        raise UserError(f'--bootstrap {args.bootstrap}: give 100 or more, or 0 for no intervals')
    bootstrap = Bootstrap(args.bootstrap, args.seed) if args.bootstrap else None
    return _parse_ranges(args.measure, args.ranges), bootstrap
