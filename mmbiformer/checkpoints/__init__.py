"""Checkpoints: reading files safely, names of each family, and a strict account of what fits.

Also whole ones: written with a manifest, verified, and the newest of them found; and whether
values are finite.
"""

from .finite import first_of, kind_of, list_nonfinite
from .inspecting import CheckpointError
from .manifests import check_digest, find_damage, megabytes, remove_checkpoint, write_checkpoint
from .names import BIFORMER, BIFORMER_STL, CLOFORMER, Names
from .newest import check_resumable, find_newest, list_checkpoints
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
    'check_digest',
    'check_resumable',
    'find_damage',
    'find_newest',
    'first_of',
    'kind_of',
    'list_checkpoints',
    'list_nonfinite',
    'load_file',
    'may_unpickle',
    'megabytes',
    'read_checkpoint',
    'remove_checkpoint',
    'write_checkpoint',
]
