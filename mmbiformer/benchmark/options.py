"""The command line of ``tools/benchmark.py``."""

import argparse
import os
import re

from mmbiformer.errors import UserError

from .cases import MODES, Size
from .device import DTYPES, pick_device
from .families import FAMILIES, FAMILY_OF

LEVELS = ('op', 'backbone', 'detector', 'plugin', 'ablation', 'growth', 'advice', 'check')
GROWTH_SIZES = (256, 384, 512, 768, 1024, 1536)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(f'{message} (see --help)')


def parse_options(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the options.

    Raises:
        UserError: If an option is unknown, or its value does not fit.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--level', choices=LEVELS, default='backbone', help='what is measured (%(default)s)')
    add('--mode', choices=MODES, nargs='+', help='default: both')
    add('--size', type=parse_size, nargs='+', help='HxW or one number; default 512, plugin 640')
    families = ', '.join(family.name for family in FAMILIES)
    add('--arch', choices=list(FAMILY_OF), help=f'of {families} (default: s)')
    add(
        '--models',
        nargs='+',
        help='rows, as official-style, chunked, swin-t, cloformer-s; default: most of the level',
    )
    add('--partition-factor', type=_count, help='S; default: 7, 8, 16 at 224, 512, 800x1344')
    add('--batch-size', type=_count, default=1, help='images per step (%(default)s)')
    add('--device', choices=['auto', 'cpu', 'cuda'], default='auto')
    add('--amp', choices=[name for name in DTYPES if name != 'fp32'], help='default: float32')
    add('--compile', action='store_true', help='level backbone: each row compiled as well')
    add('--cuda-graph', action='store_true', help='level backbone: each as a CUDA graph as well')
    add('--deterministic', action='store_true', help="PyTorch's deterministic algorithms alone")
    add('--measure', action='store_true', help='level advice: also time the backbone at each S')
    add('--repeats', type=_count, default=5, help='rounds after the warm-up (%(default)s)')
    add('--out-dir', default='work_dirs/benchmark', help='for JSON and PNG (%(default)s)')
    options = parser.parse_args(argv)
    options.device = pick_device(options.device)
    if options.level in ('growth', 'advice') and (options.mode or options.partition_factor):
        raise UserError(
            f'--level {options.level} is about inference over many S: leave out --mode and '
            '--partition-factor'
        )
    if options.level == 'check' and options.mode:
        raise UserError('--level check is about forward and backward: leave out --mode')
    if (options.compile or options.cuda_graph) and options.level != 'backbone':
        raise UserError(
            f'--compile and --cuda-graph go with --level backbone, not with {options.level}'
        )
    if options.level == 'plugin' and (options.partition_factor or options.arch):
        raise UserError(
            '--level plugin is YOLOX-s with S=7: leave out --partition-factor and --arch'
        )
    if options.level == 'ablation' and options.arch:
        raise UserError("--level ablation is of Swin-T's size: leave out --arch")
    options.arch = options.arch or 's'
    if options.deterministic and options.device == 'cuda':
        # cuBLAS reads it when it starts, and has no deterministic products without it.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    if options.measure and options.level != 'advice':
        raise UserError(f'--measure goes with --level advice, not with {options.level}')
    options.mode = options.mode or list(MODES)
    options.precision = options.amp or 'fp32'
    sides = dict(growth=GROWTH_SIZES, plugin=(640,)).get(options.level, (512,))
    options.size = options.size or [(side, side) for side in sides]
    return options


def parse_size(text: str) -> Size:
    """'800x1344' or '224' as height and width."""
    match = re.fullmatch(r'(\d+)(?:x(\d+))?', text)
    if not match or '0' in (match[1], match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is no size: write 512 or 800x1344")
    return int(match[1]), int(match[2] or match[1])


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)
