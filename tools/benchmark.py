"""Time, memory and cost of BiFormer, beside the official style and mmdet's backbones.

python tools/benchmark.py                                   # backbone S at 512x512, all rows
python tools/benchmark.py --size 800x1344 --mode training
python tools/benchmark.py --level detector --models chunked swin-t
python tools/benchmark.py --level plugin                    # routed attention within YOLOX-s
python tools/benchmark.py --level growth                    # cost against resolution
python tools/benchmark.py --level advice --size 640x960     # which partition factor S
python tools/benchmark.py --level check --size 800x1344     # are the GPU kernels right here
"""

from pathlib import Path

from mmbiformer.cli import run_tool

CONFIGS = Path(__file__).parent.parent / 'configs'


def main() -> None:
    from mmbiformer.benchmark.main import main

    main(__doc__, str(CONFIGS))


if __name__ == '__main__':
    run_tool(main, needs=('mmengine',))
