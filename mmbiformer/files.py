"""Writing files and folders that are whole or absent, whatever ends the program; reading JSON."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """Give a place to write to; what is written there takes its name when the block is done.

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
        os.replace(unfinished, path)


def read_json(path: str | Path) -> object | None:
    """What a JSON file holds, or None where it is missing or cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
