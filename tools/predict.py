"""Predict on an image, a folder of images, a video or a camera, with a detector or a segmenter.

python tools/predict.py IMAGE|FOLDER|VIDEO|CAMERA CONFIG CHECKPOINT --out-dir predictions

Writes annotated pictures, or a video of a video and a camera, and COCO results or label maps. A
camera is a number, as 0, or the address of a stream; Ctrl-C ends it.
"""

from mmbiformer.cli import run_tool, tool_parser
from mmbiformer.errors import UserError


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('source', help='image, folder of images, video, or camera: 0, rtsp://...')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument('--out-dir', default='predictions', help='folder for all files')
    parser.add_argument('--annotations', help='COCO file with the ids of images and categories')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='draw what scores more (0.3)'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images, or slices, in a batch')
    parser.add_argument('--device', help='as cuda:1; else the accelerator, if there is one')
    parser.add_argument('--frames', type=int, help='end a video or a camera after so many')
    parser.add_argument(
        '--sliced',
        type=int,
        nargs='?',
        const=512,
        metavar='SIDE',
        help='also predict on slices of so many pixels (512), for small objects; needs SAHI',
    )
    args = parser.parse_args()
    for name in ('batch_size', 'frames', 'sliced'):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} {value}: choose 1 or more')

    if not 0 <= args.score_threshold <= 1:
        raise UserError(f'--score-threshold {args.score_threshold:g}: choose from 0 to 1')

    from mmbiformer.prediction import Predictor, open_source, predict_source

    source = open_source(args.source, args.frames)
    predictor = Predictor(args.config, args.checkpoint, args.device, slice_side=args.sliced)
    written = predict_source(
        predictor,
        source,
        args.out_dir,
        batch_size=args.batch_size,
        score_threshold=args.score_threshold,
        annotations=args.annotations,
    )
    for path in written:
        print(path)


if __name__ == '__main__':
    run_tool(main)
