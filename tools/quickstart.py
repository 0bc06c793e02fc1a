"""Train a small BiFormer on generated shapes, evaluate it and draw what it finds.

python tools/quickstart.py --task detection
"""

import argparse
from pathlib import Path

from mmbiformer.cli import run_tool

CONFIGS = Path(__file__).parent.parent / 'configs'
TASKS = {
    'detection': CONFIGS / 'biformer/retinanet_biformer_quickstart_shapes.py',
    'segmentation': CONFIGS / 'biformer/fpn_biformer_quickstart_shapes.py',
    'classification': CONFIGS / 'classification/biformer_quickstart_shapes.py',
}


def main() -> None:
    parser = argparse.ArgumentParser(description='Train on generated shapes, evaluate and draw.')
    parser.add_argument('--task', choices=TASKS, default='detection')
    args = parser.parse_args()

    from mmbiformer.experiments.quickstart import quickstart

    print(quickstart(str(TASKS[args.task])))


if __name__ == '__main__':
    run_tool(main)
