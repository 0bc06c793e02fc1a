"""The checkpoint that a run goes on from."""

import re
from pathlib import Path

from mmbiformer.errors import UserError

from .manifests import find_damage
from .reading import CheckpointError, load_file

# What a training run writes and weights alone do not have.
OF_A_RUN = {'message_hub', 'meta', 'optimizer', 'state_dict'}


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder's run that can be gone on from, the newest first.

    These are the ``*.pth`` with a number in their name, but for the best, which have no optimizer.
    The time of writing orders them. After a copy it says little: what is newer than the one that
    `last_checkpoint` names must have a larger number, too.
    """
    folder = Path(folder)
    paths = [x for x in folder.glob('*.pth') if _step(x) >= 0 and not x.name.startswith('best_')]
    last = _last_checkpoint(folder)
    since = last.stat().st_mtime_ns if last in paths else 0

    def newness(path: Path) -> tuple:
        time = path.stat().st_mtime_ns
        is_newer = last in paths and time > since and _step(path) > _step(last)
        return is_newer, path == last, time, _step(path)

    return sorted(paths, key=newness, reverse=True)


def find_newest(folder: str | Path) -> tuple[Path, list[str]]:
    """The newest checkpoint of a folder that verifies.

    It is as its manifest says, or in sound condition without one, can be loaded, and holds what a
    run goes on with.

    Returns:
        tuple[Path, list[str]]: The checkpoint, and for each newer one why it was passed over.

    Raises:
        UserError: If there is none; says what is wrong with each.
    """
    passed_over = []
    last = _last_checkpoint(Path(folder))
    if last and not last.is_file():
        passed_over.append(f'{last.name}, which last_checkpoint names, is not there')
    for path in list_checkpoints(folder):
        if not (damage := find_damage(path)):
            try:
                check_resumable(path)
            except CheckpointError as error:
                damage = f'cannot be gone on from: {error}'
        if not damage:
            return path, passed_over
        passed_over.append(f'{path.name} {damage}')
    found = '; '.join(passed_over) or 'it holds no checkpoint of a training run'
    raise UserError(
        f"nothing to resume in '{folder}': {found}. To start afresh leave --resume out, or name a "
        'checkpoint behind it'
    )


def check_resumable(path: str | Path) -> None:
    """Refuse a file that no training run wrote: raises CheckpointError."""
    if lacking := sorted(OF_A_RUN - load_file(path).keys()):
        raise CheckpointError(
            f"checkpoint '{path}' cannot be resumed, it has no {', '.join(lacking)}: "
            '--resume needs one that a training run wrote, --pretrained takes weights'
        )


def _last_checkpoint(folder: Path) -> Path | None:
    """What mmengine's `last_checkpoint` names, in this folder, which may have been moved."""
    try:
        name = (folder / 'last_checkpoint').read_text(encoding='utf-8', errors='replace').strip()
    except FileNotFoundError:
        return None
    return folder / Path(name).name if name else None


def _step(path: Path) -> int:
    """The last number in a file's name, -1 without one."""
    return int((re.findall(r'\d+', path.stem) or [-1])[-1])
