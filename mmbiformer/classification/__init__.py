"""Classification with mmpretrain, which importing this imports.

Configs name what is here by its path, ``type='mmbiformer.classification.ImageClassifier'``: were
it among the locations of a registry, detectors would need mmpretrain too.
"""

from .image_classifier import ImageClassifier
from .label_maps import LoadLabelMap, RandomFlipWithLabelMap, RandomResizedCropWithLabelMap
from .token_labelling import TokenLabelClassifier, TokenLabelHead

__all__ = [
    'ImageClassifier',
    'LoadLabelMap',
    'RandomFlipWithLabelMap',
    'RandomResizedCropWithLabelMap',
    'TokenLabelClassifier',
    'TokenLabelHead',
]
