"""Routed attention on plain tensors. Needs torch alone."""

from .routed_attention import BACKENDS, routed_attention
from .routing import routing_indices

__all__ = ['BACKENDS', 'routed_attention', 'routing_indices']
