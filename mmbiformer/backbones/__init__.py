"""Backbones. Needs torch, mmengine and einops."""

from .base import StagedBackbone
from .biformer import BiFormer
from .cloformer import CloFormer
from .swin_layout import BiFormerSTL, SwinLayout

# Those whose checkpoints the converter knows.
BACKBONES = (BiFormer, BiFormerSTL, CloFormer)

__all__ = ['BACKBONES', 'BiFormer', 'BiFormerSTL', 'CloFormer', 'StagedBackbone', 'SwinLayout']
