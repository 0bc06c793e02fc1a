"""What ``tools/benchmark.py`` runs: time, memory, growth and advice. Nothing else uses it."""

from .official_style import official_style

__all__ = ['official_style']
