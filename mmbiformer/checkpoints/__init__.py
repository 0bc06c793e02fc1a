"""Checkpoints: reading files safely, names of each family, and a strict account of what fits."""

from .inspecting import CheckpointError
from .names import BIFORMER, BIFORMER_STL, CLOFORMER, Names
from .reading import load_file, may_unpickle, read_checkpoint
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
    'may_unpickle',
    'read_checkpoint',
]
