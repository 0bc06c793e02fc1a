"""See which regions a pixel's region routes to, and what its token attends to.

python tools/visualize_routing.py IMAGE CONFIG CHECKPOINT --query 240,180 --out-dir routing

Of the last routed attention of each stage, or of those that --modules names.
"""

import re
from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of the whole model')
    parser.add_argument(
        '--query', nargs='+', default=[], help='pixels of the image, as 240,180: x before y'
    )
    parser.add_argument('--modules', nargs='+', help='names of routed attentions, or all')
    parser.add_argument('--out-dir', default='routing', help='folder for pictures and numbers')
    parser.add_argument('--device', help='as cuda:1; else the accelerator, if there is one')
    args = parser.parse_args()
    queries = [_parse(text) for text in args.query]

    from mmbiformer.engine import load_config
    from mmbiformer.engine.images import ImagePipeline, load_model
    from mmbiformer.visualization import last_of_each_size, look_at, write_routing

    cfg = load_config(args.config)
    pipeline = ImagePipeline(cfg)
    model = load_model(cfg, args.checkpoint, args.device)
    names = None if args.modules in (None, ['all']) else args.modules
    look = look_at(model, pipeline, args.image, names)
    maps = look.maps if args.modules else last_of_each_size(look.maps)
    if not queries:
        height, width = look.image.shape[:2]
        queries = [(width // 2, height // 2)]
    name = Path(args.image).stem
    for path in write_routing(look, maps, queries, Path(args.out_dir), name):
        print(path)


def _parse(text: str) -> tuple[float, float]:
    from mmbiformer.errors import UserError

    if not re.fullmatch(r'\d+(\.\d+)?,\d+(\.\d+)?', text):
        raise UserError(f'--query {text}: write x and y of a pixel with a comma, as 240,180')
    x, y = text.split(',')
    return float(x), float(y)


if __name__ == '__main__':
    run_tool(main)
