"""Routed attention on plain tensors. Needs torch alone."""

from . import flops  # noqa: F401 (registers what the operators cost)
from .backends import BACKENDS
from .routed_attention import routed_attention
from .routing import routing_indices

__all__ = ['BACKENDS', 'routed_attention', 'routing_indices']
