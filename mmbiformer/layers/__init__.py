"""Attention modules and the block of BiFormer. Needs torch and einops."""

from .attention import Attention, FullAttention
from .block import LAYER_NORM_EPS, BiFormerBlock
from .drop_path import DropPath
from .mlp import MLP
from .routing_attention import BiLevelRoutingAttention, ChannelsFirstRoutingAttention

__all__ = [
    'LAYER_NORM_EPS',
    'MLP',
    'Attention',
    'BiFormerBlock',
    'BiLevelRoutingAttention',
    'ChannelsFirstRoutingAttention',
    'DropPath',
    'FullAttention',
]
