"""Evaluate a checkpoint of a detector, a segmenter or a classifier: the config decides.

python tools/test.py CONFIG CHECKPOINT --data-root data/coco --show-dir pictures
"""

from mmbiformer.cli import parse_run, run_parser, run_tool


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument('--out', help='where predictions go: a .pkl file, or a folder of maps')
    parser.add_argument('--show-dir', help='folder for pictures, ground truth beside predictions')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--no-report', action='store_true', help='write no run report')
    args, cfg = parse_run(parser)

    from mmbiformer.engine import build_tester
    from mmbiformer.run_report import report_at_end

    runner = build_tester(
        cfg,
        args.checkpoint,
        launcher=args.launcher,
        out=args.out,
        show_dir=args.show_dir,
        tta=args.tta,
    )
    runner.test()
    if not args.no_report:
        report_at_end(runner)


if __name__ == '__main__':
    run_tool(main)
