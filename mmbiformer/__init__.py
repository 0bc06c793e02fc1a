"""BiFormer and CloFormer for MMDetection 3.x and MMSegmentation 1.x."""

import warnings

from .loading import place_loader
from .stack import find_problems

__version__ = '0.1.0'
__all__ = ['BiFormer', 'BiFormerSTL', 'CloFormer', '__version__']


def __getattr__(name: str) -> object:
    # Lazy, so that `mmbiformer.ops` imports with torch alone.
    if name in ('BiFormer', 'BiFormerSTL', 'CloFormer'):
        from . import backbones

        return getattr(backbones, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


place_loader()
for _problem in find_problems():
    warnings.warn(_problem, stacklevel=2)
