"""Backbones. Needs torch, mmengine and einops."""

from .base import StagedBackbone
from .biformer import BiFormer

# Families whose checkpoints the converter knows.
FAMILIES = (BiFormer,)

__all__ = ['FAMILIES', 'BiFormer', 'StagedBackbone']
