"""Where the images of an annotation file are: in the data root, and all of them."""

import os
from collections import defaultdict

from .findings import Finding, find, short


def check_file_names(images: list[dict], path: str, root: str, prefix: str) -> list[Finding]:
    """Every image has a file name of its own, below the data root.

    Args:
        images (list[dict]): The records of an annotation file.
        path (str): The file.
        root (str): The data root, '' for none.
        prefix (str): The folder of the images below it.
    """

    def name(i: int) -> str:
        return f'image {short(images[i].get("id"))} ({short(images[i].get("file_name"))})'

    names = [x.get('file_name') for x in images]
    wrong = [i for i, x in enumerate(names) if not _is_name(x)]
    findings = find(path, 'images without a file_name', wrong, 'name their files', name)
    if findings:
        return findings
    base = os.path.abspath(root or prefix)
    # Of all names only few need a closer look.
    odd = [i for i, x in enumerate(names) if x.startswith('/') or '..' in x]
    leaving = [i for i in odd if not _is_below(os.path.join(root, prefix, names[i]), base)]
    if root or prefix:
        remedy = f"use names relative to '{os.path.join(root, prefix)}'"
        findings += find(path, 'file names that leave the data root', leaving, remedy, name)
    first: dict[str, int] = {}
    twice = [i for i, x in enumerate(names) if first.setdefault(x, i) != i]
    return findings + find(
        path,
        'images of the same file as another',
        twice,
        'leave one record of each, with all annotations',
        name,
        is_error=False,
    )


def _is_name(value: object) -> bool:
    if type(value) is not str or not value or '\0' in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_below(path: str, folder: str) -> bool:
    return os.path.abspath(path).startswith(folder.rstrip('/') + '/')


def check_presence(images: list[dict], path: str, folder: str) -> list[Finding]:
    """Every image of an annotation file is there, by a listing of each folder that it names."""
    names = defaultdict(list)
    for i, record in enumerate(images):
        head, _, tail = record['file_name'].rpartition('/')
        names[head].append((i, tail))
    missing = []
    for head, wanted in names.items():
        there = list_folder(os.path.join(folder, head))
        missing += [i for i, tail in wanted if tail not in there]
    return find(
        path,
        f"images that are not in '{folder}'",
        sorted(missing),
        f'all {len(images):,} are missing: set data_prefix.img of the dataset, or --data-root'
        if len(missing) == len(images)
        else 'restore them, or remove their records',
        lambda i: images[i]['file_name'],
    )


def list_folder(folder: str) -> set[str]:
    """The names in a folder, none where it is missing."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (OSError, ValueError):
        return set()
