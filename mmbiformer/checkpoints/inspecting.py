"""What a checkpoint file names, and whether it expands: seen without unpickling anything."""

import mmap
import os
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mmbiformer.errors import UserError

# How torch tells its archives, since 1.6, from the five pickles in a row of before.
_ARCHIVE = b'PK\x03\x04'
_OLD_PICKLES = 5


class CheckpointError(UserError):
    """A checkpoint cannot be read, or does not fit the model; the message says why."""


def names_in(path: str | Path) -> set[str]:
    """The full names of all classes and functions that a checkpoint file has unpickled.

    Raises:
        CheckpointError: If the file holds more than its size, as zip bombs do.
        Exception: If it is no checkpoint: of many kinds.
    """
    with open(path, 'rb') as file:
        if file.read(len(_ARCHIVE)) == _ARCHIVE:
            return _names_in_archive(path)
        # What claims to be long is read from a map no further than it goes.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return set().union(*(_names_in_pickle(content) for _ in range(_OLD_PICKLES)))


def _names_in_archive(path: str | Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # torch looks members up without regard to case.
        names = [x.filename.lower() for x in members]
        if any(x.endswith('/constants.pkl') for x in names):
            raise CheckpointError(f"'{path}' is a TorchScript program: give a file of weights")
        if sum(x.file_size for x in members) > os.path.getsize(path):
            raise CheckpointError(
                f"'{path}' holds more than its size: a checkpoint is not compressed; save it "
                'again with torch.save'
            )
        if len(set(names)) < len(names):
            raise CheckpointError(f"'{path}' has two members of one name: save it again")
        pickles = [x for x in members if x.filename.lower().endswith('.pkl')]
        return set().union(*(_names_in_pickle(BytesIO(archive.read(x))) for x in pickles))


def _names_in_pickle(file: BinaryIO) -> set[str]:
    names = set()
    for opcode, value, _ in pickletools.genops(file):
        if opcode.name in ('GLOBAL', 'INST'):
            module, _, name = value.partition(' ')
            # The protocol of checkpoints writes the names of Python 2.
            module, name = NAME_MAPPING.get((module, name), (module, name))
            names.add(f'{IMPORT_MAPPING.get(module, module)}.{name}')
    return names
