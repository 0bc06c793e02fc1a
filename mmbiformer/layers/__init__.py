"""Attention modules, and the blocks of BiFormer and CloFormer. Needs torch and einops."""

from .attention import Attention, FullAttention
from .block import LAYER_NORM_EPS, BiFormerBlock
from .clo_attention import CloAttention
from .clo_block import CloBlock, StridedCloBlock
from .drop_path import DropPath
from .mlp import MLP
from .patches import ChannelsFirstLayerNorm, PatchConv2d
from .routing_attention import BiLevelRoutingAttention, ChannelsFirstRoutingAttention

__all__ = [
    'LAYER_NORM_EPS',
    'MLP',
    'Attention',
    'BiFormerBlock',
    'BiLevelRoutingAttention',
    'ChannelsFirstLayerNorm',
    'ChannelsFirstRoutingAttention',
    'CloAttention',
    'CloBlock',
    'DropPath',
    'FullAttention',
    'PatchConv2d',
    'StridedCloBlock',
]
