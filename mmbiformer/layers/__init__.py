"""Attention modules and the block of BiFormer. Needs torch and einops."""

from .attention import BiLevelRoutingAttention, FullAttention
from .block import LAYER_NORM_EPS, BiFormerBlock, DropPath

__all__ = [
    'LAYER_NORM_EPS',
    'BiFormerBlock',
    'BiLevelRoutingAttention',
    'DropPath',
    'FullAttention',
]
