"""Backbones. Needs torch, mmengine and einops."""

from .base import StagedBackbone
from .biformer import BiFormer

# Those whose checkpoints the converter knows.
BACKBONES = (BiFormer,)

__all__ = ['BACKBONES', 'BiFormer', 'StagedBackbone']
