"""Have the installed torchvision import beside a torch that it was not built for.

python requirements/repair_torchvision.py

Package indexes offer a torchvision for the default build of torch alone. Beside a torch for CPUs
its operators do not load, and the import of torchvision ends in "operator torchvision::nms does
not exist"; so does that of mmpretrain and, where mmpretrain is installed, that of mmdet. None of
them needs the operators: they need its transforms, and to log its version. This declares the
operators at the top of the installed package, without code: whoever calls one gets torchvision's
own error. Beside another torch, for which the operators load, it changes nothing. A torchvision
that imports is left alone. Installing torchvision again undoes it.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

DECLARATION = """# Put here by requirements/repair_torchvision.py: operators that do not load.
import torch as _torch

from . import extension as _extension

if not _extension._has_ops():  # beside a torch that fits they load, and may be declared only once
    _declared = _torch.library.Library('torchvision', 'DEF')
    for _name in ('nms', 'qnms'):
        _declared.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

"""


def main() -> None:
    spec = importlib.util.find_spec('torchvision')
    if spec is None:
        sys.exit('torchvision is not installed: nothing to repair')
    problem = import_error()
    if not problem:
        return
    if not problem.endswith('operator torchvision::nms does not exist'):
        sys.exit(f'torchvision does not import, for another reason: {problem}')
    path = Path(spec.origin)
    path.write_text(DECLARATION + path.read_text(encoding='utf-8'), encoding='utf-8')
    if problem := import_error():
        sys.exit(f'torchvision does not import, though its operators are declared: {problem}')
    print(f'{path}: operators that do not load are declared, so that torchvision imports')


def import_error() -> str:
    """The last line that importing torchvision ends in; '' where it imports."""
    command = [sys.executable, '-c', 'import torchvision']
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ''


if __name__ == '__main__':
    main()
