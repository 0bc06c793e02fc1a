"""Trying the kernels of 'triton' on the GPU where they are to run, before anyone relies on them.

Compilers have made wrong programs of right kernels on single GPUs. So the kernels are trusted
where they have computed what plain PyTorch computes there. They are tried in a process of their
own: a kernel that fails may leave its process without a usable GPU, or never end.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from mmbiformer.files import read_json, whole_or_absent

from . import chunked, triton_backend
from .inputs import Inputs

logger = logging.getLogger('mmbiformer')

# Height and width of regions: one for each row of the tables of tiles.
REGIONS = (3, 4), (7, 11), (13, 21)
NUM_HEADS = 2
TOPK = 4
# How far a result may be off, as a share of its largest value.
ALLOWED = {torch.float32: 1e-5, torch.float16: 6e-3, torch.bfloat16: 5e-2}
RESULTS = 'output', *(f'gradient of {x}' for x in ('q', 'k', 'v', 'pad_key', 'pad_value'))
SECONDS = 600  # most of them for the compiler, which has some thirty kernels to compile
SOURCES = [
    'kernel_check.py',
    *(f'triton_{name}.py' for name in ('backend', 'compiler', 'kernels', 'regions')),
]


class Setup(NamedTuple):
    """What the kernels are compiled for.

    Attributes:
        device (str): As 'cuda:0'.
        dtype (str): As 'bfloat16'.
        head_dim (int): Channels of a head.
        partition_factor (int): S.
        has_pads (bool): Whether padding takes part as tokens, or takes no part.
    """

    device: str
    dtype: str
    head_dim: int
    partition_factor: int
    has_pads: bool


def problem(inputs: Inputs) -> str | None:
    """Why the kernels, which can run on the inputs, are not to; None where they are right."""
    from .triton_regions import INTERPRETED

    if INTERPRETED.value:
        return None
    device, dtype = str(inputs.q.device), str(inputs.q.dtype).removeprefix('torch.')
    has_pads = inputs.pad_key is not None
    return fault(Setup(device, dtype, inputs.head_dim, inputs.partition_factor, has_pads))


@cache
def fault(setup: Setup) -> str | None:
    """What is wrong with the kernels in this setup, None where they have passed their check.

    They are tried once a process, and not where they have passed before with this GPU, these
    compilers and these kernels: a file remembers that.
    """
    description = _describe(setup)
    path = _memory_of(description)
    if read_json(path) == description:
        return None
    logger.info("routed attention: the kernels of 'triton' are compiled and tried on this GPU")
    if found := try_apart(setup):
        versions = ', '.join(f'{name} {x}' for name, x in description['versions'].items())
        remedy = f'; {misfit}' if (misfit := triton_backend.misfit()) else ''
        return f"the kernels of 'triton' did not pass their check: {found} ({versions}){remedy}"
    try:
        with whole_or_absent(path) as unfinished:
            unfinished.write_text(json.dumps(description, indent=1), encoding='utf-8')
    except OSError as error:
        logger.warning(
            "routed attention: '%s', where it is remembered that the kernels passed their check, "
            'cannot be written (%s): each process repeats the check until XDG_CACHE_HOME names '
            'a folder that can',
            path,
            error.strerror,
        )
    return None


def _describe(setup: Setup) -> dict:
    """What the outcome of a check depends on, as JSON has it."""
    code = b''.join(Path(__file__).with_name(name).read_bytes() for name in SOURCES)
    gpu = ptxas = None
    if setup.device.startswith('cuda'):
        from .triton_compiler import ptxas_version

        gpu = torch.cuda.get_device_name(setup.device)
        major, minor = torch.cuda.get_device_capability(setup.device)
        ptxas = '{}.{}'.format(*ptxas_version(10 * major + minor))
    return dict(
        setup={**setup._asdict(), 'device': setup.device.partition(':')[0]},
        versions=dict(
            GPU=gpu,
            torch=torch.__version__,
            CUDA=torch.version.cuda,
            triton=import_module('triton').__version__,
            ptxas=ptxas,
        ),
        compilers=[os.environ.get(f'TRITON_{x}_PATH') for x in ('PTXAS', 'PTXAS_BLACKWELL')],
        code=hashlib.sha256(code).hexdigest(),
    )


def _memory_of(description: dict) -> Path:
    """The file that is there where the kernels have passed."""
    caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    name = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:32]
    return Path(caches, 'mmbiformer/kernel_checks', f'{name}.json')


def try_apart(setup: Setup) -> str | None:
    """:func:`find_fault` in a process of its own."""
    command = [sys.executable, '-W', 'ignore', '-m', __name__, json.dumps(setup)]
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, 'PYTHONPATH': paths},
        )
    except subprocess.TimeoutExpired:
        return f'it did not end within {SECONDS} s'
    except OSError as error:
        return f'it could not be started: {error}'
    if done.returncode:
        said = done.stderr.strip().rpartition('\n')[2] or 'nothing'
        return f'it ended with code {done.returncode} and said: {said}'
    return json.loads(done.stdout.splitlines()[-1])


def find_fault(setup: Setup, backend: ModuleType = triton_backend) -> str | None:
    """Compute problems of all kinds in this process, and compare with plain PyTorch in float64.

    Args:
        setup (Setup): What to compute on, and in which precision.
        backend (ModuleType): Whose ``forward`` and ``backward``.

    Returns:
        str: Which result is how far off in which problem; None where none is.
    """
    allowed = ALLOWED[getattr(torch, setup.dtype)]
    for name, inputs, grad_out in problems(setup):
        found = _compute(backend, inputs, grad_out)
        truth = _compute(chunked, in_float64(inputs), grad_out.double())
        for result, x, true in zip(RESULTS, found, truth, strict=True):
            if x is None:
                continue
            error, largest = (x.double() - true).abs().max().item(), true.abs().max().item()
            if not error <= allowed * largest:  # nan is not, either
                return (
                    f'the {result} is off by {error:.2g}, where {allowed * largest:.2g} is '
                    f'allowed, with {name}'
                )
    return None


def _compute(backend: ModuleType, inputs: Inputs, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The output, and the gradients of :data:`RESULTS`."""
    out, kept = backend.forward(inputs)
    return out, *backend.backward(grad_out, inputs, out, kept)[:-1]


def in_float64(inputs: Inputs) -> Inputs:
    """The inputs from which plain PyTorch computes what is right."""
    return Inputs(*(x.double() if is_real(x) else x for x in inputs))


def is_real(x: object) -> bool:
    """Whether an input is a tensor of numbers that are no indices."""
    return isinstance(x, Tensor) and x.is_floating_point()


def problems(setup: Setup) -> Iterator[tuple[str, Inputs, Tensor]]:
    """Small problems that reach all tiles, and whatever is special about lists and padding.

    Yields:
        tuple: What is in it, the inputs, and the gradient of the output.
    """
    generator = torch.Generator().manual_seed(0)
    dtype, s = getattr(torch, setup.dtype), setup.partition_factor
    channels, num_regions = NUM_HEADS * setup.head_dim, s * s

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(setup.device, dtype)

    for h, w in REGIONS:
        # Where S allows it, a row of partial regions and a last one of padding alone.
        padded = max(s * h - h - 1, s * (h - 1) + 1), s * w - 1
        for padding, (height, width) in (('with', padded), ('without', (s * h, s * w))):
            # By chance; or all to region 0, whose list of queries is cut into pieces.
            chosen = torch.rand(1, num_regions, num_regions, generator=generator)
            chosen = chosen.topk(min(TOPK, num_regions)).indices
            for routes, indices in (('by chance', chosen), ('to one', chosen[..., :1] * 0)):
                maps = randn(1, height, width, 3 * channels).chunk(3, dim=-1)
                pads = (randn(channels), randn(channels)) if setup.has_pads else (None, None)
                settings = s, NUM_HEADS, setup.head_dim**-0.5
                name = f'regions of {h} x {w} {padding} padding, routed {routes}'
                inputs = Inputs(*maps, indices.to(setup.device), *pads, *settings)
                yield name, inputs, randn(1, height, width, channels)


if __name__ == '__main__':
    print(json.dumps(find_fault(Setup(*json.loads(sys.argv[1])))))
