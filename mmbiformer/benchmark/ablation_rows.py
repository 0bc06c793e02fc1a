"""Rows of level ablation: attentions in Swin-T's layout, and the path from there to BiFormer-S."""

from torch import nn

from mmbiformer.backbones import BiFormer, BiFormerSTL, SwinLayout
from mmbiformer.backbones.slots import SLOTS

ROUTING = 'routing'
DEEPER = dict(
    embed_dims=BiFormer.arch_settings['small']['embed_dims'],
    depths=BiFormer.arch_settings['small']['depths'],
    mlp_ratios=(3, 3, 3, 3),
)
# The steps of the paper's table 6 behind BiFormer-STL; each keeps those before it, and the last is
# BiFormer-S.
STEPS = {
    'overlapped': dict(downsampling='overlapped'),
    'deeper': dict(arch=DEEPER),
    'conv-position': dict(conv_position=True),
}
ROWS = (*(name for name in SLOTS if name != ROUTING), ROUTING, *STEPS)


def build_row(name: str, partition_factor: int) -> nn.Module:
    """The backbone of a row; ``partition_factor`` is of those that route."""
    if name in SLOTS and name != ROUTING:
        return SwinLayout(attention=name)
    options = {}
    steps = list(STEPS)
    for step in steps[: steps.index(name) + 1] if name in STEPS else ():
        options.update(STEPS[step])
    return BiFormerSTL(partition_factor=partition_factor, norm_eval=True, **options)
