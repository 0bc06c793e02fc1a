"""Train a detector, a segmenter or a classifier: the config decides.

python tools/train.py configs/biformer/retinanet_biformer-s_fpn_1x_coco.py --data-root data/coco
"""

from mmbiformer.cli import parse_run, run_parser, run_tool


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument('--pretrained', help='checkpoint that the backbone starts from')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help="go on from this checkpoint, or from the work dir's latest",
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the lr with the total batch size'
    )
    parser.add_argument('--no-report', action='store_true', help='write no run report')
    args, cfg = parse_run(parser)

    from mmbiformer.engine import build_trainer
    from mmbiformer.run_report import report_at_end

    runner = build_trainer(
        cfg,
        launcher=args.launcher,
        resume=args.resume,
        pretrained=args.pretrained,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
    )
    runner.train()
    if not args.no_report:
        report_at_end(runner)


if __name__ == '__main__':
    run_tool(main)
