"""Check all data of a config: annotations, classes, and every image and label map.

python tools/check_data.py configs/biformer/mask-rcnn_biformer-s_fpn_1x_coco.py --data-root coco

Every run checks what annotation files and folders tell; this opens the images as well. The report
goes to <work dir>/data_check.json. It ends with exit code 2 where a run must not start.
"""

import os
from pathlib import Path

from mmbiformer.cli import parse_run, run_parser, run_tool


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='threads; default: all cores'
    )
    args, cfg = parse_run(parser)

    from mmbiformer.engine.full_check import check_all, report_lines, write_report
    from mmbiformer.errors import UserError

    report = check_all(cfg, args.workers)
    path = Path(cfg.work_dir, 'data_check.json')
    write_report(dict(config=args.config, **report), path)
    for line in report_lines(report):
        print(line)
    print(f'wrote {path}')
    if not report['ok']:
        count = sum(len(x['errors']) for x in report['datasets'])
        raise UserError(f"{count} kinds of errors in the data: they are above and in '{path}'")


if __name__ == '__main__':
    run_tool(main)
