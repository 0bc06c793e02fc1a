"""Convert an official BiFormer checkpoint, or a detector's or segmenter's, to a backbone's.

    python tools/model_converters/biformer_to_mm.py biformer_small_best.pth biformer-s.pth

The result has this package's names, holds tensors and the architecture, a name or an own one, and
loads with ``init_cfg=dict(type='Pretrained', checkpoint='biformer-s.pth')``. Official files load
so too, unconverted.
"""

from pathlib import Path

from mmbiformer.cli import run_tool, tool_parser


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('src', type=Path, help='official or mm checkpoint')
    parser.add_argument('dst', type=Path, help='file to write')
    args = parser.parse_args()

    # Only now, so that run_tool can say which package is missing.
    from mmbiformer.backbones.convert import convert_checkpoint

    backbone, arch = convert_checkpoint(args.src, args.dst)
    print(f'{args.dst}: {backbone.__name__}(arch={arch!r})')
    if not isinstance(arch, str):
        print('the numbers in topks are not in the weights: put those of the training there')


if __name__ == '__main__':
    run_tool(main)
