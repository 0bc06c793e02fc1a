"""What a user reads whose Ultralytics is missing, too old or edited; runs without Ultralytics."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = 'mmbiformer.integrations.ultralytics'
REMEDY = 'pip install "ultralytics>=8.3,<8.5"'
MISSING = "raise ModuleNotFoundError(\"No module named 'ultralytics'\", name='ultralytics')"
CASES = {
    MISSING: f"ultralytics does not import (No module named 'ultralytics'): {REMEDY}",
    "__version__ = '8.2.103'": f'ultralytics 8.2.103 is too old: {REMEDY}',
}


def run(stub: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with what lies in a folder in the place of Ultralytics."""
    env = {**os.environ, 'PYTHONPATH': f'{stub}{os.pathsep}{ROOT}'}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize('content', CASES)
def test_ultralytics_that_does_not_fit_is_one_line(tmp_path, content) -> None:
    (tmp_path / 'ultralytics.py').write_text(content)
    imported = run(tmp_path, '-c', f'import {MODULE}')
    assert imported.stderr.splitlines()[-1] == f'ImportError: {CASES[content]}'
    command = run(tmp_path, '-m', MODULE, 'train', 'model=x.yaml')
    assert (command.returncode, command.stdout) == (2, '')
    assert command.stderr == f'error: {CASES[content]}\n'


def test_ultralytics_with_an_attention_written_into_it_is_one_line(tmp_path) -> None:
    for folder in ('models', 'nn'):
        (tmp_path / 'ultralytics' / folder).mkdir(parents=True)
    (tmp_path / 'ultralytics/__init__.py').write_text("__version__ = '8.3.50'")
    (tmp_path / 'ultralytics/models/yolo.py').touch()
    (tmp_path / 'ultralytics/nn/tasks.py').write_text('class BiLevelRoutingAttention: ...')
    command = run(tmp_path, '-m', MODULE, 'train', 'model=x.yaml')
    assert command.returncode == 2
    assert command.stderr == (
        'error: ultralytics has a BiLevelRoutingAttention already, from ultralytics.nn.tasks, as '
        'some tutorials write it into the package: pip install --force-reinstall --no-deps '
        '"ultralytics>=8.3,<8.5"\n'
    )


def test_nothing_of_the_package_imports_ultralytics_by_itself() -> None:
    code = (
        "import sys; sys.modules['ultralytics'] = None\n"
        'import mmbiformer, mmbiformer.layers, mmbiformer.ops, mmbiformer.integrations'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
