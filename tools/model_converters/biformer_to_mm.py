"""Convert an official BiFormer checkpoint, or a detector's or segmenter's, to a backbone's.

    python tools/model_converters/biformer_to_mm.py biformer_small_best.pth biformer-s.pth

The result has this package's names, holds tensors and the architecture's name, and loads with
``init_cfg=dict(type='Pretrained', checkpoint='biformer-s.pth')``. Official files load so too,
unconverted.
"""

import argparse
from pathlib import Path

from mmbiformer.cli import run_tool
from mmbiformer.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', type=Path, help='official or mm checkpoint')
    parser.add_argument('dst', type=Path, help='file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Imported here, so that run_tool can say what is missing.
    import torch

    from mmbiformer import BiFormer
    from mmbiformer.checkpoint import adapt_state_dict, infer_arch, load_file, read_state_dict

    state_dict = read_state_dict(load_file(args.src))
    arch = infer_arch(state_dict, BiFormer.arch_settings)
    with torch.device('meta'):
        backbone = BiFormer(arch)
    adapt_state_dict(backbone, state_dict, prefix='', strict=True)  # logs the counts
    try:
        torch.save({'state_dict': state_dict, 'meta': {'arch': arch}}, args.dst)
    except (OSError, RuntimeError) as error:
        raise UserError(f"'{args.dst}' cannot be written: {error}") from error
    print(f'{args.dst}: BiFormer(arch={arch!r})')


if __name__ == '__main__':
    run_tool(main)
