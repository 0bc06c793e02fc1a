"""Running the tools as a user does, in this process or in one of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmbiformer.engine import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/biformer'
# Real images, which are not part of the repository: tests without them are skipped.
SAMPLES = Path(os.environ.get('MMBIFORMER_SAMPLES', ROOT.parent / 'shared/data'))
# Data are loaded in the process itself: starting workers takes longer than these runs.
IN_PROCESS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]

TTA = """
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations', reduce_zero_label=True)],
        [dict(type='PackSegInputs')],
    ]),
]
"""


def run_tool(name: str, *args: object, report: bool = False) -> None:
    """Run ``tools/<name>.py`` in this process; ends in SystemExit where the tool does.

    Trainings and tests write no run report, which takes longer than most of them here, unless
    ``report`` is true.
    """
    if name in ('train', 'test') and not report:
        args = (*args, '--no-report')
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, args)])
        patch.setenv('LOCAL_RANK', '0')
        tool.run_tool(tool.main)


def run_command(*args: object, **options) -> subprocess.CompletedProcess:
    """Run a command from the repository's root; a failure shows what it printed, and no command
    may take longer than a test."""
    options = dict(capture_output=True, text=True, timeout=500, **options)
    done = subprocess.run([*map(str, args)], cwd=ROOT, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def save_untrained(config: Path, path: Path) -> torch.nn.Module:
    """Write a checkpoint with the weights that a model of this config begins with."""
    cfg = load_config(str(config))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, path)
    return model


def metrics_of(work_dir: Path) -> dict:
    """What the one test run in this work dir found."""
    (path,) = [path for path in work_dir.glob('*/*.json') if path.parent.name == path.stem]
    return json.loads(path.read_text())
