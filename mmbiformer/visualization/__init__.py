"""Seeing what routed attention attends to."""

from .capture import RoutedMap, TokenAttention, capture_routing, routed_modules

__all__ = ['RoutedMap', 'TokenAttention', 'capture_routing', 'routed_modules']
