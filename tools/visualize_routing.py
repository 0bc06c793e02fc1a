"""See which regions a pixel's region routes to, and what its token attends to.

python tools/visualize_routing.py IMAGE CONFIG CHECKPOINT --query 240,180 --out-dir routing

Of the last routed attention of each stage, or of those that --modules names. Of a folder of images
it tells how far and how evenly all routed attentions route; with --annotations, a COCO file, also
what regions with small objects choose against those without objects.
"""

import re
from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser
from mmbiformer.errors import UserError


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('image', help='image file, or a folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument(
        '--query', nargs='+', default=[], help='pixels of the image, as 240,180: x before y'
    )
    parser.add_argument('--modules', nargs='+', help='names of routed attentions, or all')
    parser.add_argument('--annotations', help='COCO file of the images in the folder')
    parser.add_argument('--out-dir', default='routing', help='folder for pictures and numbers')
    parser.add_argument('--device', help='as cuda:1; else the accelerator, if there is one')
    args = parser.parse_args()
    queries = [_parse(text) for text in args.query]

    from mmbiformer.engine import load_config
    from mmbiformer.engine.images import ImagePipeline, load_model

    is_folder = Path(args.image).is_dir()
    if (is_folder and queries) or (not is_folder and args.annotations):
        raise UserError('--query is for an image, and --annotations for a folder of images')
    cfg = load_config(args.config)
    pipeline = ImagePipeline(cfg)
    model = load_model(cfg, args.checkpoint, args.device)
    names = None if args.modules in (None, ['all']) else args.modules
    look = _look_at_folder if is_folder else _look_at_image
    for path in look(args, model, pipeline, names, queries):
        print(path)


def _look_at_image(args, model, pipeline, names, queries) -> list[Path]:
    from mmbiformer.visualization import last_of_each_size, look_at, write_routing

    look = look_at(model, pipeline, args.image, names)
    maps = look.maps if args.modules else last_of_each_size(look.maps)
    if not queries:
        height, width = look.image.shape[:2]
        queries = [(width // 2, height // 2)]
    return write_routing(look, maps, queries, Path(args.out_dir), Path(args.image).stem)


def _look_at_folder(args, model, pipeline, names, _) -> list[Path]:
    from mmbiformer import visualization
    from mmbiformer.datasets.image_files import list_images

    paths = list_images(args.image)
    objects = visualization.read_objects(args.annotations, paths) if args.annotations else None
    modules = visualization.collect(model, pipeline, paths, names, objects)
    print(visualization.statistics_text(modules))
    return visualization.write_statistics(modules, Path(args.out_dir))


def _parse(text: str) -> tuple[float, float]:
    if not re.fullmatch(r'\d+(\.\d+)?,\d+(\.\d+)?', text):
        raise UserError(f'--query {text}: write x and y of a pixel with a comma, as 240,180')
    x, y = text.split(',')
    return float(x), float(y)


if __name__ == '__main__':
    run_tool(main)
