"""Reading checkpoint files without running any code in them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from mmbiformer.errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be read, or does not fit the model; the message says why."""


def load_file(path: str | Path) -> Mapping:
    """Read a checkpoint file to the CPU without running any code in it.

    Objects that are no tensors or plain values, such as the training arguments in official files
    and the message hub in mm ones, come back as empty placeholders.

    Raises:
        CheckpointError: If the file is missing or is no checkpoint.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint '{path}' not found: check the path")
    try:
        # Files written before torch 1.6 are no archives, and torch cannot list what is in them.
        # Before 2.6, torch cannot list it of any file.
        find_objects = getattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', None)
        objects = find_objects(path) if find_objects and zipfile.is_zipfile(path) else []
        with torch.serialization.safe_globals([(_Ignored, name) for name in objects]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises anything from KeyError to RuntimeError
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint: {str(error).strip() or repr(error)}"
        ) from error
    if not isinstance(checkpoint, Mapping) or not all(isinstance(key, str) for key in checkpoint):
        raise CheckpointError(f"'{path}' holds no state dict: give a file of a model's weights")
    return checkpoint


class _Ignored:
    """Stands for an object in a checkpoint file that is not wanted."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass
