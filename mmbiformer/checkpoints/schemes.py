"""Where checkpoints come from: files, addresses, and the names of mmengine's model zoos."""

import os
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_local_path
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from .inspecting import CheckpointError
from .reading import read_checkpoint

# Scheme -> its table of addresses.
_ZOOS = {
    'modelzoo': get_torchvision_models,
    'torchvision': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}


def load(filename: str, map_location: object = None) -> object:
    """Read a checkpoint of any scheme that mmengine knows; see :func:`read_checkpoint`.

    Args:
        filename (str): A path, ``https://...``, ``s3://...``, ``torchvision://resnet50`` and so
            on. What is fetched from an address stays in torch.hub's folder.
        map_location: As of :func:`torch.load`.

    Raises:
        CheckpointError: If it cannot be fetched or read.
    """
    scheme, _, name = filename.rpartition('://')
    if not scheme:
        return read_checkpoint(os.path.expanduser(filename), map_location)
    if scheme in ('http', 'https'):
        return read_checkpoint(_fetch(filename), map_location)
    if scheme.rpartition(':')[2] in ('s3', 'petrel'):
        with get_local_path(filename, backend_args=dict(backend='petrel')) as path:
            return read_checkpoint(path, map_location)
    if scheme not in _ZOOS:
        raise CheckpointError(f"checkpoint '{filename}': fetch the file and name its path")
    checkpoint = read_checkpoint(_fetch(_address(filename, scheme, name)), map_location)
    return _backbone_of(checkpoint) if scheme == 'mmcls' else checkpoint


def _address(filename: str, scheme: str, name: str) -> str:
    addresses = _ZOOS[scheme]()
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
    address = addresses.get(name, '')
    if not address.startswith(('http://', 'https://')):
        raise CheckpointError(f"checkpoint '{filename}': mmengine has no address of it")
    return address


def _fetch(address: str) -> Path:
    """The file of an address, which the first process downloads unless it is there."""
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(address).path).name)
    for is_turn in (get_rank() == 0, get_rank() > 0):  # others may be on other machines
        if is_turn and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(address, str(path), progress=os.isatty(0))
            except (OSError, RuntimeError) as error:  # no network; a file that came in part
                reason = str(error).strip() or repr(error)
                raise CheckpointError(
                    f"checkpoint '{address}' cannot be fetched: {reason}"
                ) from error
        barrier()
    return path


def _backbone_of(checkpoint: dict) -> dict:
    """What a detector takes of a classifier's file."""
    tensors = checkpoint.get('state_dict', checkpoint)
    prefix = 'backbone.'
    return dict(
        state_dict={n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
    )
