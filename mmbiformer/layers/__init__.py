"""Attention modules and the block of BiFormer. Needs torch and einops."""

from .attention import Attention, BiLevelRoutingAttention, FullAttention
from .block import LAYER_NORM_EPS, BiFormerBlock
from .drop_path import DropPath
from .mlp import MLP

__all__ = [
    'LAYER_NORM_EPS',
    'MLP',
    'Attention',
    'BiFormerBlock',
    'BiLevelRoutingAttention',
    'DropPath',
    'FullAttention',
]
