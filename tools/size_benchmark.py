"""Train small BiFormer, Swin and ResNet of matched cost on shapes of all sizes; report AP by size.

python tools/size_benchmark.py --setting small
"""

import argparse
from pathlib import Path

from mmbiformer.cli import run_tool

CONFIGS = Path(__file__).parent.parent / 'configs/size_benchmark'
BACKBONES = ('biformer', 'swin', 'resnet')


def main() -> None:
    from mmbiformer.experiments.size_comparison import SETTINGS, compare_backbones

    parser = argparse.ArgumentParser(
        description='Train backbones of matched cost from scratch, compare them across sizes.'
    )
    parser.add_argument(
        '--setting', choices=SETTINGS, default='small', help='how many images (default: small)'
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='train with each of them (default: 0)'
    )
    parser.add_argument('--out-dir', default='work_dirs/size_benchmark', help='folder to write')
    parser.add_argument(
        '--resume', action='store_true', help='keep finished runs, go on with the unfinished'
    )
    args = parser.parse_args()

    configs = {name: str(CONFIGS / f'retinanet_{name}_shapes.py') for name in BACKBONES}
    print(compare_backbones(configs, args.setting, args.seeds, args.out_dir, args.resume))


if __name__ == '__main__':
    run_tool(main)
