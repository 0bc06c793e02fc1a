"""Checkpoints: reading files safely, names of each family, and a strict account of what fits."""

from .names import BIFORMER, BIFORMER_STL, CLOFORMER, Names
from .reading import CheckpointError, load_file
from .strict import adapt_state_dict, backbone_tensors

__all__ = [
    'BIFORMER',
    'BIFORMER_STL',
    'CLOFORMER',
    'CheckpointError',
    'Names',
    'adapt_state_dict',
    'backbone_tensors',
    'load_file',
]
