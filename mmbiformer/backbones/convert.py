"""Writing checkpoints of any family under names of ours."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmbiformer.checkpoints import CheckpointError, adapt_state_dict, backbone_tensors, load_file
from mmbiformer.errors import UserError
from mmbiformer.files import whole_or_absent

from . import BACKBONES, StagedBackbone


def convert_checkpoint(
    src: str | Path, dst: str | Path
) -> tuple[type[StagedBackbone], str | dict]:
    """Write the backbone of a checkpoint: ``state_dict``, and ``arch`` in ``meta``.

    Returns:
        tuple: The backbone's class, and its ``arch``.

    Raises:
        UserError: If the source is missing, no checkpoint or of no known family, or if the file
            cannot be written.
    """
    checkpoint = load_file(src)
    backbone, arch = _identify(checkpoint)
    with torch.device('meta'):
        model = backbone(arch)
    state_dict = dict(checkpoint)
    adapt_state_dict(model, state_dict, prefix='', strict=True)  # logs the counts
    try:
        if not Path(dst).absolute().parent.is_dir():
            raise OSError(f"there is no folder '{Path(dst).parent}'")
        with whole_or_absent(dst) as unfinished:
            torch.save({'state_dict': state_dict, 'meta': {'arch': arch}}, unfinished)
    except (OSError, RuntimeError) as error:
        raise UserError(f"'{dst}' cannot be written: {error}") from error
    return backbone, arch


def _identify(checkpoint: Mapping) -> tuple[type[StagedBackbone], str | dict]:
    """The class and ``arch`` that a loaded file belongs to."""
    tensors, problems = backbone_tensors(checkpoint), []
    for backbone in BACKBONES:
        names = backbone.checkpoint_names
        try:
            return backbone, backbone.infer_arch({names.ours(n): x for n, x in tensors.items()})
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError('; '.join(problems))
