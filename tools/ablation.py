"""Train the attentions of the paper's comparison in one layout, and measure what they cost.

python tools/ablation.py --seeds 0 1

Eight attentions in Swin-T's layout, and the steps from there to BiFormer, narrow and short, on
generated shapes: detection by size (RetinaNet) and segmentation (Semantic FPN). Then the cost of
each at full size, at three resolutions. --resume goes on after a stop, and keeps a cost that was
measured. Seeds may be trained apart into one folder, one process for each, and be reported
together by --seeds 0 1 --resume; cost that a process measures beside a training is to be removed
before (--out-dir/cost).
"""

from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser

CONFIGS = Path(__file__).parent.parent / 'configs'
SIZES = ('224', '512', '800x1344')


def main() -> None:
    from mmbiformer.benchmark import main as benchmark
    from mmbiformer.benchmark.ablation_rows import ROWS
    from mmbiformer.experiments.ablation import ablate

    parser = tool_parser(__doc__)
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='train with each of them (default: 0)'
    )
    parser.add_argument('--out-dir', default='work_dirs/ablation', help='(default: %(default)s)')
    parser.add_argument(
        '--resume', action='store_true', help='keep finished runs, go on with the unfinished'
    )
    args = parser.parse_args()

    # Swin's attention first: the others are compared with it.
    names = sorted(ROWS, key=lambda name: name != 'shifted_window')
    detectors, segmenters = (
        {x: str(CONFIGS / f'ablation/{method}_{x.replace("_", "-")}_shapes.py') for x in names}
        for method in ('retinanet', 'fpn')
    )
    print(ablate(detectors, segmenters, args.seeds, args.out_dir, args.resume), flush=True)
    cost = Path(args.out_dir, 'cost')
    if args.resume and (measured := sorted(cost.glob('*.json'))):
        print(f'cost of each is there: {measured[-1]}')
        return
    where = ['--out-dir', str(cost), '--repeats', '3']
    benchmark.main('', str(CONFIGS), ['--level', 'ablation', '--size', *SIZES, *where])


if __name__ == '__main__':
    run_tool(main)
