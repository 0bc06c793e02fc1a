"""Opening images and label maps, a few or all of them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mmbiformer.datasets.image_files import (
    Labels,
    image_problem,
    image_size,
    label_map_problem,
)

from .findings import Finding, find

SAMPLE = 16
PART = 32  # files that a thread takes at a time
REMEDIES = {
    'images': 'restore them, or remove their records; max_skipped of the config lets training '
    'leave some out',
    'label maps': 'mend them, or set the classes of the dataset and reduce_zero_label',
}


class File(NamedTuple):
    """An image, and what is known of it.

    Attributes:
        path (str): Of the image.
        size (tuple[int, int], optional): Height and width of its record.
        label_map (str, optional): Path of its label map.
        labels (Labels, optional): Which values the map may have; None for any.
    """

    path: str
    size: tuple[int, int] | None = None
    label_map: str | None = None
    labels: Labels | None = None


def open_file(file: File) -> list[tuple[str, str, str]]:
    """What is wrong with an image and its label map: 'images' or 'label maps', path, problem."""
    found = []
    if problem := image_problem(file.path, file.size):
        found.append(('images', file.path, problem))
    if file.label_map is not None:
        problem = label_map_problem(file.label_map, file.labels, image_size(file.path))
        if problem:
            found.append(('label maps', file.label_map, problem))
    return found


def open_sample(files: list[File]) -> Iterator[list[tuple[str, str, str]]]:
    """Open a few files from everywhere in a list."""
    return map(open_file, files[:: max(1, -(-len(files) // SAMPLE))])


def open_all(files: list[File], workers: int) -> Iterator[list[tuple[str, str, str]]]:
    """Open all files in several threads, in their order.

    Decoders and checksums run side by side in threads. Processes would be forks of this one, where
    OpenCV waits for threads that no fork has.
    """
    if workers < 2:
        yield from map(open_file, files)
        return
    parts = (files[start : start + PART] for start in range(0, len(files), PART))
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda part: [open_file(file) for file in part], parts):
            yield from found


def file_findings(
    opened: Iterable[list[tuple[str, str, str]]], place: str, may_skip: int = 0
) -> list[Finding]:
    """What opening files found, by kind; no error where training may leave as many out."""
    found = [problem for problems in opened for problem in problems]
    findings = []
    for kind, remedy in REMEDIES.items():
        bad = [f"'{path}' {problem}" for which, path, problem in found if which == kind]
        what = f'{kind} that cannot be used'
        findings += find(place, what, bad, remedy, is_error=len(bad) > may_skip)
    return findings
