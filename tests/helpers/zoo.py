"""The configs on disk, by name."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIGS = {
    path.stem: path
    for path in sorted((ROOT / 'configs').rglob('*.py'))
    if '_base_' not in path.relative_to(ROOT).parts
}
RETINANET = 'retinanet_biformer-{}_fpn_1x_coco'
MASK_RCNN = 'mask-rcnn_biformer-{}_fpn_1x_coco'
SEMANTIC_FPN = 'fpn_biformer-{}_8xb4-80k_ade20k-512x512'
UPERNET = 'upernet_biformer-{}_8xb2-160k_ade20k-512x512'
FAMILIES = (RETINANET, MASK_RCNN, SEMANTIC_FPN, UPERNET)
NAMES = [family.format(size) for family in FAMILIES for size in 'tsb']
ABLATION = [name for name, path in CONFIGS.items() if path.parent.name == 'ablation']
CLOFORMER = [
    name.replace('biformer-{}', f'cloformer-{size}')
    for name in (RETINANET, MASK_RCNN, SEMANTIC_FPN)
    for size in ('xxs', 'xs', 's')
]

CLASSIFIERS = [
    f'{backbone}_8xb128_in1k'
    for backbone in (
        *('biformer-t', 'biformer-s', 'biformer-b', 'biformer-stl'),
        *('cloformer-xxs', 'cloformer-xs', 'cloformer-s'),
    )
]
TOKEN_LABELLING = 'biformer-s_8xb128-token-labelling_in1k'


@cache
def read(name: str) -> Config:
    return Config.fromfile(CONFIGS[name])


def load(name: str) -> Config:
    return deepcopy(read(name))
