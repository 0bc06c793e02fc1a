"""Classification with mmpretrain, which importing this imports.

Configs name what is here by its path, ``type='mmbiformer.classification.ImageClassifier'``: among
the locations of a registry it would have every detector import mmpretrain.
"""

from .image_classifier import ImageClassifier

__all__ = ['ImageClassifier']
