"""Reading checkpoint files without running anything in them."""

import functools
import logging
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch.torch_version import TorchVersion

from .config_text import disarm
from .finite import check_finite
from .inspecting import CheckpointError, names_in
from .stand_ins import left_out, settle, stand_ins_for

# Set to 1 it has every file unpickled as it asks for.
UNPICKLE = 'MMBIFORMER_UNPICKLE'
# Before it, files could get around torch's weights-only loading.
_SAFE_TORCH = '2.10'
# Parts of torch's messages that say how to read less safely, and frames around them.
_ADVICE = re.compile(
    r'weights.only|safe_globals|torch\.load|trust|documentation|file an issue|^\W*$', re.IGNORECASE
)


def load_file(path: str | Path) -> Mapping:
    """Read a file of weights to the CPU; see :func:`read_checkpoint`.

    Raises:
        CheckpointError: If the file cannot be read or holds no state dict.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Mapping) or not all(isinstance(key, str) for key in checkpoint):
        raise CheckpointError(f"'{path}' holds no state dict: give a file of a model's weights")
    return checkpoint


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint file without running anything in it.

    Tensors, plain values, numpy's numbers and mmengine's histories come back. Settings of training
    scripts are left out, which the log says; what is neither is refused. Config text in the places
    where mmengine would run it is taken away.

    Args:
        path (str | Path): The file.
        map_location: As of :func:`torch.load`.

    Raises:
        CheckpointError: If the file is missing, is no checkpoint, asks for what could run code,
            claims to be larger than it is, or has weights that are not finite.
    """
    path = str(path)
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint '{path}' not found: check the path")
    try:
        if may_unpickle(path):
            return torch.load(path, map_location=map_location, weights_only=False)
        _warn_of_old_torch()
        stand_ins = stand_ins_for(names_in(path), path)
        with _known_to_torch(stand_ins, path):
            content = torch.load(path, map_location=map_location, weights_only=True)
        content = settle(content, path, os.path.getsize(path))
    except CheckpointError:
        raise
    except Exception as error:  # torch and the standard library raise anything
        # Not chained: torch's own text advises to unpickle.
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint: {_reason(error)}"
        ) from None
    if names := left_out(stand_ins):
        print_log(f"left out of '{path}': {', '.join(names)}", logger='current')
    disarm(content, path)
    check_finite(content, path)
    return content


def may_unpickle(path: str) -> bool:
    """Whether the user wants all files unpickled; warns each time, with the file's path.

    Raises:
        UserError: If the variable is neither 1 nor 0.
    """
    value = os.environ.get(UNPICKLE, '')
    if value in ('', '0'):
        return False
    if value != '1':
        raise CheckpointError(f'{UNPICKLE}={value!r} must be 1 or 0: unset it')
    print_log(
        f"{UNPICKLE}=1: '{path}' is unpickled and can run any code on this machine",
        logger='current',
        level=logging.WARNING,
    )
    return True


@functools.cache
def _warn_of_old_torch() -> None:
    if TorchVersion(torch.__version__) < TorchVersion(_SAFE_TORCH):
        print_log(
            f'torch {torch.__version__} has known holes in its weights-only loading '
            f'(CVE-2025-32434, CVE-2026-24747): upgrade to {_SAFE_TORCH} for files of others',
            logger='current',
            level=logging.WARNING,
        )


def _known_to_torch(stand_ins: dict, path: str) -> AbstractContextManager:
    """While it is open, torch takes the stand-ins for what files name."""
    if not stand_ins:
        return nullcontext()
    if TorchVersion(torch.__version__) < TorchVersion('2.6'):  # it takes no names
        raise CheckpointError(
            f"'{path}' has {', '.join(stand_ins)}, which torch {torch.__version__} cannot read "
            f'without running code: upgrade to {_SAFE_TORCH}'
        )
    return torch.serialization.safe_globals([(x, name) for name, x in stand_ins.items()])


def _reason(error: Exception) -> str:
    """What went wrong, in a line without torch's advice."""
    text = str(error).replace('WeightsUnpickler error: ', '\n')
    lines = [x.strip() for x in text.splitlines() if not _ADVICE.search(x)]
    return lines[0] if lines else type(error).__name__
