"""Train small detectors on shapes of all sizes, and report AP by size.

python tools/size_benchmark.py                                 # BiFormer, Swin and ResNet
python tools/size_benchmark.py --compare plugin --seeds 0 1 2  # YOLOX with routed attention or not
python tools/size_benchmark.py --compare pretrained            # started from a classifier or not

After the plug-in its cost is measured in YOLOX-s, also with deterministic algorithms.
"""

from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser

CONFIGS = Path(__file__).parent.parent / 'configs'
# What is compared -> name in the report -> config. The others are compared with the first.
COMPARISONS = {
    'backbones': {
        name: f'size_benchmark/retinanet_{name}_shapes.py'
        for name in ('biformer', 'swin', 'resnet')
    },
    'plugin': {
        name: f'plugin/{name}_shapes.py'
        for name in ('yolox', 'yolox_bra-p3', 'yolox_bra-p3-p4-p5')
    },
    'pretrained': dict.fromkeys(
        ('scratch', 'pretrained'), 'size_benchmark/retinanet_biformer_shapes.py'
    ),
}
# Name in the report -> config of the classifier that it starts from.
STARTS = {'pretrained': 'classification/biformer_quickstart_shapes.py'}
FOLDERS = {
    'backbones': 'work_dirs/size_benchmark',
    'plugin': 'work_dirs/plugin_benchmark',
    'pretrained': 'work_dirs/pretrained_benchmark',
}


def main() -> None:
    from mmbiformer.benchmark import main as benchmark
    from mmbiformer.experiments.size_comparison import SETTINGS, compare_detectors

    parser = tool_parser(__doc__)
    parser.add_argument(
        '--compare', choices=COMPARISONS, default='backbones', help='default: backbones'
    )
    parser.add_argument(
        '--setting', choices=SETTINGS, default='small', help='how many images (default: small)'
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='train with each of them (default: 0)'
    )
    parser.add_argument('--out-dir', help=f'default: {" or ".join(FOLDERS.values())}')
    parser.add_argument(
        '--resume', action='store_true', help='keep finished runs, go on with the unfinished'
    )
    args = parser.parse_args()

    configs = {name: str(CONFIGS / path) for name, path in COMPARISONS[args.compare].items()}
    out_dir = args.out_dir or FOLDERS[args.compare]
    starts = {name: str(CONFIGS / STARTS[name]) for name in configs if name in STARTS}
    how = (args.setting, args.seeds, out_dir, args.resume, starts)
    print(compare_detectors(configs, *how), flush=True)
    if args.compare == 'plugin':
        for options in ([], ['--mode', 'training', '--deterministic']):
            where = ['--out-dir', str(Path(out_dir, 'cost'))]
            benchmark.main('', str(CONFIGS), ['--level', 'plugin', *where, *options])


if __name__ == '__main__':
    run_tool(main)
