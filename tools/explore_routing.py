"""Write a page in which an image answers where it routes to: the routing explorer.

python tools/explore_routing.py IMAGE CONFIG CHECKPOINT --annotations instances.json

Of a folder it writes a page for each image; of the size_ap.json of a size report, for each of its
worst images, which --image-dir has. With --beside, two models are seen side by side.
"""

from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('image', help='image file, folder of images, or size_ap.json')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument('--image-dir', help='where the images of size_ap.json are')
    parser.add_argument(
        '--annotations', help='ground truth: COCO file, or folder of label maps named as images'
    )
    parser.add_argument(
        '--beside', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='another model to compare with'
    )
    parser.add_argument('--modules', nargs='+', help='names of routed attentions; else all')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='least score of detections'
    )
    parser.add_argument(
        '--max-size', type=float, default=15, help='of a page in MB, for each model'
    )
    parser.add_argument('--out-dir', default='explorers', help='folder for the pages')
    parser.add_argument('--device', help='as cuda:1; else the accelerator, if there is one')
    args = parser.parse_args()

    from mmbiformer.visualization.explorer import find_images, open_model, write_explorers

    images = find_images(args.image, args.image_dir)
    chosen = [(args.config, args.checkpoint), *([args.beside] if args.beside else [])]
    models = [open_model(*x, args.device) for x in chosen]
    for path in write_explorers(
        images,
        models,
        Path(args.out_dir),
        annotations=args.annotations,
        names=args.modules,
        threshold=args.score_threshold,
        max_size=args.max_size,
    ):
        print(path)


if __name__ == '__main__':
    run_tool(main)
