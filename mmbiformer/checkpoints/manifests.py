"""Checkpoint files and their manifests: the SHA-256 of a file beside it, for ``sha256sum -c``.

A manifest tells whether a file is as it was written. It does not tell who wrote it.
"""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from mmbiformer.errors import UserError
from mmbiformer.files import NO_SPACE, sync, whole_or_absent


def manifest_of(path: str | Path) -> Path:
    """Where the manifest of a checkpoint is: ``epoch_1.pth.sha256`` beside ``epoch_1.pth``."""
    path = Path(path)
    return path.with_name(f'{path.name}.sha256')


def write_checkpoint(content: bytes, path: str | Path) -> None:
    """Write a checkpoint and its manifest, so that at any moment a file of this name is whole.

    The manifest comes first. While a file is replaced it has the digests of the old and of the new
    one, so that whichever is there verifies.

    Raises:
        UserError: If the disk is full. What was there before is untouched, and nothing is left of
            the new file.
    """
    path = Path(path)
    digest = hashlib.sha256(content).hexdigest()
    old = []
    try:
        if path.is_file():
            old = _read_manifest(path) or [_digest(path)]
        with whole_or_absent(path) as unfinished:
            unfinished.write_bytes(content)
            sync(unfinished)  # some file systems say only now that they are full
            _write_manifest(path, [*old, digest])
        if old:
            _write_manifest(path, [digest])
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        free = shutil.disk_usage(path.parent).free
        raise UserError(
            f"checkpoint '{path}' is not written, the disk is full: it needs "
            f'{megabytes(len(content))}, {megabytes(free)} are free, and the earlier checkpoints '
            'are whole: free space or lower max_keep_ckpts, then go on with --resume'
        ) from error


def remove_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint, and then its manifest."""
    os.remove(path)
    manifest_of(path).unlink(missing_ok=True)


def find_damage(path: str | Path) -> str | None:
    """Why a checkpoint file is not as it was written, or None where nothing is known against it.

    A file without a manifest, as other programs and older versions write, is judged by the
    checksums that torch's archives have themselves.
    """
    path = Path(path)
    if not path.is_file():
        return 'is not there'
    is_archive = _is_archive(path)
    if digests := _read_manifest(path):
        if _digest(path) in digests:
            return None
        how = '' if is_archive else 'is truncated or no checkpoint: '
        return f'{how}its SHA-256 is not the one in {manifest_of(path).name}'
    if not is_archive:
        return 'is truncated, or no checkpoint of torch 1.6 or later, and has no manifest'
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # of many kinds: flipped, flags and names mean anything
        return f'has no manifest, and its archive is broken: {error}'
    return record and f"has no manifest, and the checksum of '{record}' in it is wrong"


def check_digest(path: str | Path) -> None:
    """Refuse a file that is not what its manifest says: raises UserError.

    A file without a manifest passes, as do those that are read from elsewhere.
    """
    if Path(path).is_file() and _read_manifest(Path(path)) and (damage := find_damage(path)):
        raise UserError(f"checkpoint '{path}' is damaged: {damage}; take another one")


def megabytes(size: float) -> str:
    """A size in words: '12.3 MB'."""
    return f'{size / 1e6:,.1f} MB'


def _write_manifest(path: Path, digests: list[str]) -> None:
    with whole_or_absent(manifest_of(path)) as unfinished:
        unfinished.write_text(''.join(f'{digest}  {path.name}\n' for digest in digests))


def _read_manifest(path: Path) -> list[str]:
    """The digests of a checkpoint; none where it has no manifest."""
    try:
        lines = manifest_of(path).read_text(encoding='utf-8', errors='replace').splitlines()
    except FileNotFoundError:
        return []
    # Of an unreadable manifest something comes back that no file has.
    return [line.split(maxsplit=1)[0] for line in lines if line.strip()] or ['']


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of an archive whose end speaks of several disks
        return False


def _digest(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
