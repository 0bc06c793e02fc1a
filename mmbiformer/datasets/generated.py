"""Generated data sets: a folder is made whole, once, and says by what parameters."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from mmbiformer.errors import UserError
from mmbiformer.files import read_json, whole_or_absent


def make_once(
    root: str | Path,
    name: str,
    parameters: Mapping[str, object],
    minima: Mapping[str, int],
    write: Callable[[Path], None],
) -> Path:
    """Have a data set written to a folder, unless it is there already.

    Args:
        root (str | Path): Folder to make; it appears under its name only when it is complete.
        name (str): What the data set is called; ``<name>.json`` in the folder says its parameters.
        parameters (Mapping): All that the data depend on.
        minima (Mapping): The least that these parameters may be.
        write (Callable): Writes the data set to the folder that it is given.

    Returns:
        Path: The folder.

    Raises:
        ValueError: If a parameter is less than its minimum.
        UserError: If ``root`` holds anything else than the data set of exactly these parameters.
    """
    root = Path(root)
    manifest = f'{name.replace(" ", "_")}.json'
    for key, minimum in minima.items():
        if parameters[key] < minimum:
            raise ValueError(f'{key}={parameters[key]} is too small: use at least {minimum}')
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        if read_json(root / manifest) == parameters:
            return root
        described = ', '.join(f'{key}={value}' for key, value in parameters.items())
        raise UserError(
            f'{root} is not the {name} data set with {described}: remove it or choose another '
            'folder'
        )
    try:
        with whole_or_absent(root) as unfinished:
            write(unfinished)
            (unfinished / manifest).write_text(json.dumps(parameters), encoding='utf-8')
    except OSError:
        if read_json(root / manifest) != parameters:  # else another process was first
            raise
    return root
