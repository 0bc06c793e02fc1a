"""The device that is measured: waiting for it, its memory, its speed, its name."""

import os
import platform
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import torch

from mmbiformer import __version__
from mmbiformer.cpu import bf16_units
from mmbiformer.errors import UserError

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# Rows and columns of the matrices whose product is timed: enough to hide the start of a kernel.
MATMUL_SIZE = {'cpu': 2048, 'cuda': 8192}


def pick_device(name: str) -> str:
    """'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'.

    Raises:
        UserError: If CUDA is asked for and not there.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here: use --device cpu')
    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    return name


def synchronize(device: str) -> None:
    """Wait until all work given to the device is done."""
    if device == 'cuda':
        torch.cuda.synchronize()


def matmul_rate(device: str, precision: str) -> float:
    """Rate of a big square matrix product in GFLOP/s, the best of about half a second of runs.

    The ceiling that the models are held against: a multiply-add counts as two operations.
    """
    size = MATMUL_SIZE[device]
    a, b = torch.rand(2, size, size, device=device, dtype=DTYPES[precision])
    fastest, end = float('inf'), time.perf_counter() + 0.5
    while time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest / 1e9


def environment(device: str) -> dict[str, str]:
    """What a number must be quoted with: machine, code, versions, threads, date and command."""
    facts = {
        'machine': _machine(device),
        'code': _code(),
        'torch': torch.__version__,
        'threads': str(torch.get_num_threads()),
        'python': platform.python_version(),
        'date': datetime.now().strftime('%Y-%m-%d %H:%M'),
        'command': ' '.join(['python', os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }
    if device == 'cuda':
        facts['cuda'] = str(torch.version.cuda)
    return facts


def _code() -> str:
    """Version of this package and, in a checkout, the commit and whether files were changed."""
    root = Path(__file__).parents[2]
    git = ['git', '-C', str(root), 'describe', '--always', '--dirty']
    if not (root / '.git').exists():  # installed, perhaps within another project's checkout
        return f'mmbiformer {__version__}'
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f'mmbiformer {__version__}'
    return f'mmbiformer {__version__}, {commit}'


def _machine(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = {line.partition(':')[2].strip() for line in lines if 'model name' in line}
    units = f' with {" and ".join(bf16_units())}' if bf16_units() else ', no units for bfloat16'
    return f'{" / ".join(sorted(names)) or platform.machine()}, {os.cpu_count()} cores{units}'
