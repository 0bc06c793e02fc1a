"""What the benchmark has to know of each family of backbones, as data: one entry per family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from mmbiformer.backbones import BiFormer
from mmbiformer.backbones.biformer import TOPKS

from .official_style import official_style


@dataclass(frozen=True)
class Family:
    """One family of backbones; the names of its architectures tell it from the others.

    Attributes:
        name (str): What titles call it.
        backbone (type): The class. It takes the name of an architecture, ``partition_factor``,
            ``norm_eval`` and ``attention_backend``.
        archs (Mapping[str, str]): Name on the command line and in files -> name of the class.
        topks (tuple): How many regions each stage attends to; None for full attention.
        main_stage (int): The routed stage with most blocks, whose attention level growth measures.
        detector_config (str): Path of the shipped RetinaNet below ``configs``, with ``{arch}``.
        official_style (Callable): Makes of a backbone the yardstick that its rows are held to.
    """

    name: str
    backbone: type[nn.Module]
    archs: Mapping[str, str]
    topks: tuple[int | None, ...]
    main_stage: int
    detector_config: str
    official_style: Callable[[nn.Module], nn.Module]

    def layout(self, arch: str) -> list[tuple[int, int, int | None]]:
        """Width, depth and top-k of each stage of an architecture."""
        settings = self.backbone.arch_settings[self.archs[arch]]
        return list(zip(settings['embed_dims'], settings['depths'], self.topks, strict=True))

    def attention(self, backbone: nn.Module, stage: int) -> nn.Module:
        """The attention of a stage, whose backends are the rows."""
        return backbone.stages[stage][0].attn


FAMILIES = (
    Family(
        name='BiFormer',
        backbone=BiFormer,
        archs=dict(t='tiny', s='small', b='base'),
        topks=TOPKS,
        main_stage=2,
        detector_config='biformer/retinanet_biformer-{arch}_fpn_1x_coco.py',
        official_style=official_style,
    ),
)
FAMILY_OF = {arch: family for family in FAMILIES for arch in family.archs}


def arch_title(arch: str) -> str:
    """What titles call an architecture."""
    return f'{FAMILY_OF[arch].name}-{arch.upper()}'
