"""AP across object sizes: of anyone's detections in COCO format, or of a config and a checkpoint.

python tools/size_ap.py --ann instances_val2017.json --results A.json B.json --images val2017
python tools/size_ap.py --config CONFIG --checkpoint CHECKPOINT --data-root data/coco
python tools/size_ap.py --ann GT.json --results A.json --ranges tiny=0-16 little=16-32 rest=32-
"""

import shlex
import sys
from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser
from mmbiformer.stack import require


def main() -> None:
    from mmbiformer.errors import UserError
    from mmbiformer.evaluation import size_options
    from mmbiformer.evaluation.detection.size_tables import report_text
    from mmbiformer.evaluation.judge_files import judge_files
    from mmbiformer.evaluation.report.report_files import write_report

    parser = tool_parser(__doc__)
    parser.add_argument('--ann', help='ground truth: a COCO annotation file')
    parser.add_argument('--results', nargs='+', help='COCO result files; compared with the first')
    parser.add_argument('--images', help='folder of the images, for the worst ones in the report')
    parser.add_argument('--config', help='instead of --ann and --results: run this detector')
    parser.add_argument('--checkpoint', help='of the whole model, with --config')
    parser.add_argument('--data-root', help="with --config: COCO folder, instead of the config's")
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], help='default: masks, if all have')
    size_options.add_size_options(parser, 'work_dirs/size_ap')
    args = parser.parse_args()
    files, model = (args.ann, args.results), (args.config, args.checkpoint)
    if not ((all(files) and not any(model)) or (all(model) and not any((*files, args.images)))):
        raise UserError(
            'give either --ann and --results (and --images), or --config and --checkpoint'
        )
    ranges, bootstrap = size_options.read_size_options(args)
    if args.images and not Path(args.images).is_dir():
        raise UserError(f"--images '{args.images}' is no folder: check the path")
    annotations, results, images, classes = args.ann, args.results, args.images, None
    if args.config:
        require('mmengine', 'mmcv', 'mmdet')
        from mmbiformer.engine import load_config
        from mmbiformer.experiments.results import write_results

        cfg = load_config(args.config, data_root=args.data_root, work_dir=args.out_dir)
        prefix = Path(args.out_dir, Path(args.config).stem)
        written = write_results(cfg, args.checkpoint, prefix, args.iou_type)
        args.iou_type = args.iou_type or ('segm' if 'segm' in written.detections else 'bbox')
        chosen = written.detections[args.iou_type]
        annotations, results, images = written.annotations, [chosen], written.images
        classes = written.classes
    report = judge_files(
        annotations,
        size_options.name_results(results),
        ranges,
        iou_type=args.iou_type,
        category_names=classes,
        may_be_empty=bool(args.config),
        bootstrap=bootstrap,
        progress=True,
    )
    command = shlex.join(['python', 'tools/size_ap.py', *sys.argv[1:]])
    print(report_text(report))
    for path in write_report(report, args.out_dir, image_dir=images, command=command).values():
        print(f'wrote {path}')


if __name__ == '__main__':
    run_tool(main, needs=())
