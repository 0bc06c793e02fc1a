"""Backbones. Needs torch, mmengine and einops."""

from .base import StagedBackbone
from .biformer import BiFormer
from .cloformer import CloFormer

# Those whose checkpoints the converter knows.
BACKBONES = (BiFormer, CloFormer)

__all__ = ['BACKBONES', 'BiFormer', 'CloFormer', 'StagedBackbone']
