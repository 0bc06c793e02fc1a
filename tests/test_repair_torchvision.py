"""A torchvision that does not fit is repaired where it lies; one that fits is left alone."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from toolbox import ROOT

from mmbiformer.engine import load_config
from mmbiformer.errors import UserError

CONFIG = ROOT / 'configs/classification/biformer_quickstart_shapes.py'
# As torchvision does at import: it refers to operators, of which its own library has none.
BROKEN = """import torch
__version__ = '0.99'
for name in ('nms', 'qnms'):
    if not hasattr(torch.ops.torchvision, name):
        raise RuntimeError(f'operator torchvision::{name} does not exist')
"""


EXTENSION = 'def _has_ops(): return False'
# As a library of compiled code, of which there may be one that declares.
LOADING = """import torch
library = torch.library.Library('torchvision', 'DEF')
for name in ('nms', 'qnms'):
    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
def _has_ops(): return True
"""


def run(*args: object, first: Path | None = None) -> subprocess.CompletedProcess:
    """Run Python with a folder first on its path."""
    paths = [*([first] if first else []), *sys.path[1:]]
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, args)],
        env={'PYTHONPATH': ':'.join(map(str, paths))},
        capture_output=True,
        text=True,
    )


def repair(folder: Path | None = None) -> subprocess.CompletedProcess:
    return run(ROOT / 'requirements/repair_torchvision.py', first=folder)


def put(folder: Path, source: str) -> Path:
    path = folder / 'torchvision/__init__.py'
    path.parent.mkdir()
    path.write_text(source)
    path.with_name('extension.py').write_text(EXTENSION)
    return path


def test_operators_that_do_not_load_are_declared_once(tmp_path):
    path = put(tmp_path, BROKEN)
    done = repair(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'{path}: operators that do not load are declared')
    assert path.read_text().endswith(BROKEN)
    assert run('-c', 'import torchvision', first=tmp_path).returncode == 0
    repaired = path.read_text()
    assert repair(tmp_path).stdout == ''
    assert path.read_text() == repaired
    # With a torch that they fit, they load again.
    path.with_name('extension.py').write_text(LOADING)
    done = run('-c', 'import torchvision', first=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_torchvision_that_fits_is_left_alone(tmp_path):
    path = put(tmp_path, "__version__ = '0.99'\n")
    done = repair(tmp_path)
    assert (done.returncode, done.stdout) == (0, '')
    assert path.read_text() == "__version__ = '0.99'\n"


def test_another_fault_is_named(tmp_path):
    path = put(tmp_path, "raise RuntimeError('something else')\n")
    done = repair(tmp_path)
    assert done.returncode == 1
    assert 'for another reason: RuntimeError: something else' in done.stderr
    assert path.read_text() == "raise RuntimeError('something else')\n"


def test_a_run_says_how_to_repair_it(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    put(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r'nms does not exist\): .*repair_torchvision\.py'):
        load_config(str(CONFIG))


@pytest.mark.skipif(find_spec('torchvision') is None, reason='torchvision is not installed')
def test_the_installed_one_imports_and_calls_no_operator_in_silence():
    code = """
import torch, torchvision
print(torchvision.transforms.functional.hflip(torch.arange(3)[None]).tolist())
boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
try:
    print(torchvision.ops.nms(boxes, torch.tensor([0.5, 0.6]), 0.5).tolist() == [1])
except RuntimeError as error:
    print("Couldn't load custom C++ ops" in str(error))
"""
    assert run('-c', code).stdout.splitlines() == ['[[2, 1, 0]]', 'True']
