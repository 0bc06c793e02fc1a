"""What a training or a test did, on one HTML page, from its work folder; several side by side.

python tools/report.py work_dirs/retinanet_biformer-s_fpn_1x_coco

The run may be finished, stopped or going on. tools/train.py and tools/test.py end with this page.
"""

import shlex
import sys

from mmbiformer.cli import run_tool, tool_parser


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('work_dir', nargs='+', help='work folder of a run')
    parser.add_argument(
        '--out-dir', help="folder for the page; 'run_report' in the work folder or in work_dirs"
    )
    parser.add_argument('--device', help='as cpu, while a run needs the accelerator')
    args = parser.parse_args()

    from mmbiformer.run_report import write_run_report

    command = shlex.join(['python', *sys.argv])
    page, notices = write_run_report(
        args.work_dir, args.out_dir, device=args.device, command=command
    )
    for notice in notices:
        print(notice, file=sys.stderr)
    print(page)


if __name__ == '__main__':
    run_tool(main)
