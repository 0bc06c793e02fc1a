"""AP across object sizes: of anyone's detections, or of a config and a checkpoint.

python tools/size_ap.py --ann instances_val2017.json --results A.json B.json --images val2017
python tools/size_ap.py --config CONFIG --checkpoint CHECKPOINT --data-root data/coco
python tools/size_ap.py --ann GT.json --results A.json --ranges tiny=0-16 little=16-32 rest=32-
python tools/size_ap.py --ann labels/val --images images/val --classes data.yaml \\
  --results runs/detect/val/labels

Detections are COCO results, Ultralytics' predictions.json or label folders, or lists of boxes,
labels and scores as torchvision and Hugging Face have them: docs/result_formats.md.
"""

import shlex
import sys
from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser
from mmbiformer.stack import require


def main() -> None:
    from mmbiformer.errors import UserError
    from mmbiformer.evaluation import size_options
    from mmbiformer.evaluation.class_names import read_names
    from mmbiformer.evaluation.detection.formats.matching import READINGS
    from mmbiformer.evaluation.detection.size_tables import report_text
    from mmbiformer.evaluation.judge_files import judge_files
    from mmbiformer.evaluation.report.report_files import write_report

    parser = tool_parser(__doc__)
    parser.add_argument('--ann', help='ground truth: a COCO file, or a folder of YOLO labels')
    parser.add_argument('--results', nargs='+', help='files or folders; compared with the first')
    parser.add_argument(
        '--images', help='their folder: for the worst ones in the report, and sizes with labels'
    )
    parser.add_argument(
        '--explorers', help='folder of routing explorers: the worst images link to theirs'
    )
    parser.add_argument('--classes', help='names in order: a data YAML, or a file of one per line')
    parser.add_argument(
        '--class-numbers',
        choices=READINGS,
        help='of results, if asked: category ids, places from 0 or 1, or ids of COCO itself',
    )
    parser.add_argument('--config', help='instead of --ann and --results: run this detector')
    parser.add_argument('--checkpoint', help='of the whole model, with --config')
    parser.add_argument('--data-root', help="with --config: COCO folder, instead of the config's")
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], help='default: masks, if all have')
    size_options.add_size_options(parser, 'work_dirs/size_ap')
    args = parser.parse_args()
    files, model = (args.ann, args.results), (args.config, args.checkpoint)
    of_files = (*files, args.images, args.classes, args.class_numbers)
    if not ((all(files) and not any(model)) or (all(model) and not any(of_files))):
        raise UserError(
            'give either --ann and --results (and --images), or --config and --checkpoint'
        )
    ranges, bootstrap = size_options.read_size_options(args)
    if args.images and not Path(args.images).is_dir():
        raise UserError(f"--images '{args.images}' is no folder: check the path")
    if args.explorers and not any(Path(args.explorers).glob('*.html')):
        raise UserError(f"--explorers '{args.explorers}' has no page: check the path")
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
        image_dir=args.images,
        class_names=read_names(args.classes) if args.classes else None,
        class_numbers=args.class_numbers,
    )
    command = shlex.join(['python', 'tools/size_ap.py', *sys.argv[1:]])
    print(report_text(report))
    options = dict(image_dir=images, explorer_dir=args.explorers, command=command)
    for path in write_report(report, args.out_dir, **options).values():
        print(f'wrote {path}')


if __name__ == '__main__':
    run_tool(main, needs=())
