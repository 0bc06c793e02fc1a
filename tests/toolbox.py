"""Running the tools as a user does, in this process or in one of their own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs/biformer'
# Data are loaded in the process itself: starting workers takes longer than these runs.
IN_PROCESS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def run_tool(name: str, *args: object) -> None:
    """Run ``tools/<name>.py`` in this process; ends in SystemExit where the tool does."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, args)])
        patch.setenv('LOCAL_RANK', '0')
        tool.run_tool(tool.main)


def run_command(*args: object, **options) -> subprocess.CompletedProcess:
    """Run a command from the repository's root; a failure shows what it printed."""
    done = subprocess.run([*map(str, args)], cwd=ROOT, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
