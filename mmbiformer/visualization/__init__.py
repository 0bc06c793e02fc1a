"""Seeing what routed attention attends to."""

from .capture import RoutedMap, TokenAttention, capture_routing, routed_modules
from .folders import collect, read_objects, statistics_text, write_statistics
from .look import Look, PlacedMap, look_at
from .routing_files import last_of_each_size, write_routing

__all__ = [
    'Look',
    'PlacedMap',
    'RoutedMap',
    'TokenAttention',
    'capture_routing',
    'collect',
    'last_of_each_size',
    'look_at',
    'read_objects',
    'routed_modules',
    'statistics_text',
    'write_routing',
    'write_statistics',
]
