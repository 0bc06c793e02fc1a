"""Backbones. Needs torch, mmengine and einops."""

from .biformer import BiFormer

__all__ = ['BiFormer']
