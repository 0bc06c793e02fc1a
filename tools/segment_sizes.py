"""Segmentation by the size of segments: IoU per class, and what is found of segments of each size.

python tools/test.py CONFIG CHECKPOINT --out predictions      # label maps of an mmseg model
python tools/segment_sizes.py --gt-dir annotations/validation --pred-dirs predictions \\
  --classes ade20k --reduce-zero-label
"""

import shlex
import sys

from mmbiformer.cli import run_tool, tool_parser


def main() -> None:
    from mmbiformer.evaluation import size_options
    from mmbiformer.evaluation.judge_files import judge_folders
    from mmbiformer.evaluation.report.report_files import write_segment_report
    from mmbiformer.evaluation.segmentation.class_names import read_class_names
    from mmbiformer.evaluation.segmentation.segment_tables import segment_report_text

    parser = tool_parser(__doc__)
    parser.add_argument('--gt-dir', required=True, help='folder of ground-truth label maps (PNG)')
    parser.add_argument(
        '--pred-dirs', required=True, nargs='+', help='of predicted ones; compared with the first'
    )
    parser.add_argument(
        '--classes', required=True, help='a data set of mmseg, as ade20k, or a file of names'
    )
    parser.add_argument(
        '--reduce-zero-label', action='store_true', help='0 is no class, classes begin with 1'
    )
    size_options.add_size_options(parser, 'work_dirs/segment_sizes')
    args = parser.parse_args()
    ranges, bootstrap = size_options.read_size_options(args)
    report = judge_folders(
        args.gt_dir,
        size_options.name_results(args.pred_dirs),
        read_class_names(args.classes),
        ranges,
        reduce_zero_label=args.reduce_zero_label,
        bootstrap=bootstrap,
    )
    print(segment_report_text(report))
    command = shlex.join(['python', 'tools/segment_sizes.py', *sys.argv[1:]])
    for path in write_segment_report(report, args.out_dir, command=command).values():
        print(f'wrote {path}')


if __name__ == '__main__':
    run_tool(main, needs=())
