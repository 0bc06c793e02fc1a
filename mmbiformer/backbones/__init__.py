"""Backbones. Needs torch, mmengine and einops."""

from .base import StagedBackbone
from .biformer import BiFormer
from .cloformer import CloFormer
from .swin_layout import BiFormerSTL, SwinLayout

# Those whose checkpoints the converter knows; the first that fits counts, and STL fits most.
BACKBONES = (BiFormer, CloFormer, BiFormerSTL)

__all__ = ['BACKBONES', 'BiFormer', 'BiFormerSTL', 'CloFormer', 'StagedBackbone', 'SwinLayout']
