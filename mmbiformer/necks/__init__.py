"""Attentions within the necks of mmdet. Needs torch, mmengine and einops."""

from .attention_neck import AttentionNeck

__all__ = ['AttentionNeck']
