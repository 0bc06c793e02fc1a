"""What a run leaves about itself beside what mmengine logs, so that a report need not guess."""

import functools
import json
from os.path import abspath
from pathlib import Path

from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmengine.utils.dl_utils import collect_env

from mmbiformer.files import whole_or_absent
from mmbiformer.stack import installed_versions

NOTES = 'run_notes.json'


def write_notes(runner: Runner, split: str, notices: list[str], checkpoint: str | None) -> None:
    """Write notes into the folder of the run's log, by the main process alone.

    Args:
        runner (Runner): Whose folder it is.
        split (str): 'train' or 'test'.
        notices (list[str]): What was changed of the config, and what else was said of it.
        checkpoint (str, optional): What the run starts from, or tests.
    """
    if not is_main_process():
        return
    notes = dict(
        split=split,
        checkpoint=checkpoint
        if checkpoint is None or '://' in checkpoint
        else abspath(checkpoint),
        notices=notices,
        device=get_device(),
        processes=runner.world_size,
        environment=_environment() | installed_versions(),
    )
    with whole_or_absent(Path(runner.log_dir, NOTES)) as unfinished:
        unfinished.write_text(json.dumps(notes, indent=1), encoding='utf-8')


@functools.cache
def _environment() -> dict[str, str]:
    """mmengine's, once a process, as it asks compilers; without what torch was built with."""
    long = ('PyTorch compiling details', 'numpy_random_seed')
    return {key: str(value) for key, value in collect_env().items() if key not in long}
