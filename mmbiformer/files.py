"""Writing files and folders that are whole or absent, whatever ends the program; reading JSON."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file system says that cannot sync folders, such as some that hold objects of a cloud.
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """Give a place to write to; what is written there takes its name when the block is done.

    A file survives the end of the machine as well: its content is on the disk before it takes the
    name, and its name when this returns.

    Args:
        path (str | Path): A file, which replaces one of that name, or a folder, which may replace
            an empty one. Folders above it are made.

    Yields:
        Path: The same name in a scratch folder beside it, so that moving it copies nothing. The
        scratch folder goes in the end, with whatever else was written to it.

    Example:
        >>> with whole_or_absent('report.json') as unfinished:
        ...     unfinished.write_text('{}')
    """
    path = Path(path).resolve()  # a link stays one, and what it points to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}-') as scratch:
        unfinished = Path(scratch, path.name)
        yield unfinished
        if unfinished.is_file():
            sync(unfinished)
        os.replace(unfinished, path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == 'nt':
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(folder: str | Path, names: str) -> None:
    """Remove what :func:`whole_or_absent` left in a folder when the program was killed.

    Args:
        folder (str | Path): The folder of the files.
        names (str): Which files, as a pattern. None of them may be in the making.
    """
    for scratch in Path(folder).glob(f'.{names}-????????'):
        name = scratch.name[1:-9]
        if scratch.is_dir() and all(x.name == name for x in scratch.iterdir()):
            shutil.rmtree(scratch)


def read_json(path: str | Path) -> object | None:
    """What a JSON file holds, or None where it is missing or cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
