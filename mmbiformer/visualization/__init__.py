"""Seeing what routed attention attends to."""

from .capture import RoutedMap, TokenAttention, capture_routing, routed_modules
from .look import Look, PlacedMap, look_at
from .routing_files import last_of_each_size, write_routing

__all__ = [
    'Look',
    'PlacedMap',
    'RoutedMap',
    'TokenAttention',
    'capture_routing',
    'last_of_each_size',
    'look_at',
    'routed_modules',
    'write_routing',
]
