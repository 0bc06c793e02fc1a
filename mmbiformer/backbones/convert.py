"""Writing checkpoints of any family under names of ours."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmbiformer.checkpoints import CheckpointError, adapt_state_dict, load_file, read_state_dict
from mmbiformer.errors import UserError
from mmbiformer.files import whole_or_absent

from . import FAMILIES, StagedBackbone


def convert_checkpoint(
    src: str | Path, dst: str | Path
) -> tuple[type[StagedBackbone], str | dict]:
    """Write the backbone of a checkpoint of a classifier, detector, segmenter or backbone.

    The file has tensors under names of ours in ``state_dict``, and ``arch`` in ``meta``.

    Args:
        src (str | Path): Checkpoint with official names or ours.
        dst (str | Path): File to write.

    Returns:
        tuple: The backbone's class, and its ``arch``.

    Raises:
        UserError: If the source is missing, no checkpoint or of no known family, or if the file
            cannot be written.
    """
    checkpoint = load_file(src)
    family, arch = _identify(checkpoint)
    with torch.device('meta'):
        backbone = family(arch)
    state_dict = dict(checkpoint)
    adapt_state_dict(backbone, state_dict, prefix='', strict=True)  # logs the counts
    if not Path(dst).absolute().parent.is_dir():
        raise UserError(f"'{dst}' cannot be written: there is no folder '{Path(dst).parent}'")
    try:
        with whole_or_absent(dst) as unfinished:
            torch.save({'state_dict': state_dict, 'meta': {'arch': arch}}, unfinished)
    except (OSError, RuntimeError) as error:
        raise UserError(f"'{dst}' cannot be written: {error}") from error
    return family, arch


def _identify(checkpoint: Mapping) -> tuple[type[StagedBackbone], str | dict]:
    """The family and ``arch`` of a loaded file."""
    problems = []
    for family in FAMILIES:
        try:
            return family, family.infer_arch(read_state_dict(checkpoint, family.checkpoint_names))
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError('; '.join(problems))
