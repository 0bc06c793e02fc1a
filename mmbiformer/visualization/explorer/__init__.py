"""The routing explorer: a page in which an image answers where it routes to."""

from .making import OpenModel, find_images, open_model, write_explorers

__all__ = ['OpenModel', 'find_images', 'open_model', 'write_explorers']
