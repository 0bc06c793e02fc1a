"""Imports run one way: cpp <- ops <- layers <- backbones; nothing in the package uses tools."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).parents[1] / 'mmbiformer'
MM = {'mmcv', 'mmdet', 'mmseg'}
# What each part may import, besides the standard library and itself.
ALLOWED = {
    'cpp': {'torch', 'mmbiformer.files'},
    'cpu': {'torch'},
    'ops': {'torch', 'triton', 'mmbiformer.cpp', 'mmbiformer.files'},
    'layers': {'torch', 'einops', 'mmbiformer.cpp', 'mmbiformer.ops'},
    'backbones': {
        'torch',
        'mmengine',
        'mmbiformer.ops',
        'mmbiformer.layers',
        'mmbiformer.checkpoints',
        'mmbiformer.errors',
        'mmbiformer.files',
        'mmbiformer.registry',
    },
    'hooks': {
        *('torch', 'numpy', 'mmengine'),
        'mmbiformer.checkpoints',
        'mmbiformer.errors',
        'mmbiformer.files',
        'mmbiformer.registry',
        'mmbiformer.stopping',
    },
    'necks': {'torch', 'mmengine', 'mmbiformer.layers', 'mmbiformer.registry'},
    'rivals': {
        *('torch', 'einops', 'mmcv', 'mmdet'),
        'mmbiformer.layers',
        'mmbiformer.registry',
    },
    'datasets': {
        *('numpy', 'cv2', 'PIL', 'pycocotools', 'tqdm', 'mmcv', 'mmengine'),
        'mmbiformer.errors',
        'mmbiformer.files',
        'mmbiformer.registry',
    },
    'classification': {
        *('torch', 'numpy', 'mmcv', 'mmpretrain'),
        'mmbiformer.checkpoints',
        'mmbiformer.errors',
    },
    'engine': {
        *('torch', 'mmengine', 'mmdet', 'mmpretrain', 'mmseg', 'numpy', 'cv2', 'tqdm'),
        'mmbiformer.checkpoints',
        'mmbiformer.cpu',
        'mmbiformer.datasets',
        'mmbiformer.errors',
        'mmbiformer.evaluation',
        'mmbiformer.files',
        'mmbiformer.registry',
        'mmbiformer.stack',
    },
    'experiments': {
        'mmengine',
        'mmbiformer.checkpoints',
        'mmbiformer.datasets',
        'mmbiformer.engine',
        'mmbiformer.errors',
        'mmbiformer.evaluation',
        'mmbiformer.files',
        'mmbiformer.run_report',
        'mmbiformer.tables',
        'mmbiformer.visualization',
    },
    'benchmark': {
        *('torch', 'einops', 'matplotlib', 'mmengine', 'mmdet'),
        'mmbiformer.__version__',
        'mmbiformer.backbones',
        'mmbiformer.cpu',
        'mmbiformer.errors',
        'mmbiformer.figures',
        'mmbiformer.files',
        'mmbiformer.layers',
        'mmbiformer.ops',
        'mmbiformer.tables',
    },
    'integrations': {
        *('torch', 'mmengine', 'ultralytics'),
        'mmbiformer.backbones',
        'mmbiformer.cli',
        'mmbiformer.errors',
        'mmbiformer.layers',
    },
    'evaluation': {
        *('numpy', 'scipy', 'cv2', 'pycocotools', 'faster_coco_eval', 'tqdm', 'torch'),
        *('matplotlib', 'jinja2', 'mmengine', 'mmdet', 'mmseg', 'PIL', 'yaml'),
        'mmbiformer.__version__',
        'mmbiformer.errors',
        'mmbiformer.figures',
        'mmbiformer.files',
        'mmbiformer.registry',
        'mmbiformer.stack',
        'mmbiformer.tables',
    },
    'visualization': {
        *('torch', 'numpy', 'matplotlib', 'tqdm', 'cv2', 'pycocotools'),
        'mmbiformer.datasets',
        'mmbiformer.engine',
        'mmbiformer.errors',
        'mmbiformer.evaluation',
        'mmbiformer.figures',
        'mmbiformer.files',
        'mmbiformer.layers',
        'mmbiformer.ops',
        'mmbiformer.tables',
    },
    'prediction': {
        *('torch', 'numpy', 'cv2', 'PIL', 'tqdm', 'mmengine', 'mmdet', 'mmseg', 'sahi'),
        'mmbiformer.datasets',
        'mmbiformer.engine',
        'mmbiformer.errors',
        'mmbiformer.evaluation',
        'mmbiformer.files',
        'mmbiformer.stopping',
    },
    'run_report': {
        *('torch', 'numpy', 'cv2', 'matplotlib', 'mmengine', 'mmcv'),
        'mmbiformer.checkpoints',
        'mmbiformer.engine',
        'mmbiformer.errors',
        'mmbiformer.evaluation',
        'mmbiformer.figures',
        'mmbiformer.files',
        'mmbiformer.tables',
        'mmbiformer.visualization',
    },
    'registry': {'mmengine'},
    'checkpoints': {
        *('torch', 'numpy', 'mmengine'),
        'mmbiformer.errors',
        'mmbiformer.files',
        'mmbiformer.layers',
    },
    'loading': {'mmbiformer.checkpoints'},
    'errors': set(),
    'stack': {'torch', 'mmbiformer.errors'},
    'cli': {
        *('torch', 'mmengine'),
        'mmbiformer.engine',
        'mmbiformer.errors',
        'mmbiformer.files',
        'mmbiformer.stack',
        'mmbiformer.stopping',
    },
    'files': set(),
    'stopping': set(),
    'tables': {'prettytable'},
    'figures': {'matplotlib'},
}


def imported_modules(source: str, package: str) -> set[str]:
    """Every module that the source imports at any level of nesting, relative ones made absolute.

    Of ``from mmbiformer import x`` it is ``mmbiformer.x``.
    """
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split('.')[: -node.level + 1 or None] if node.level else []
            base = '.'.join([*base, *filter(None, [node.module])])
            whole = base == 'mmbiformer'
            modules.update(f'{base}.{alias.name}' if whole else base for alias in node.names)
    return modules


def imports_of(path: Path) -> set[str]:
    """What a file of the package imports: top-level names, and the package's own by their part."""
    package = '.'.join(path.relative_to(PACKAGE.parent).parts[:-1])
    modules = set()
    for name in imported_modules(path.read_text(), package):
        parts = name.split('.')
        modules.add('.'.join(parts[: 2 if parts[0] == 'mmbiformer' else 1]))
    return {name for name in modules if name not in sys.stdlib_module_names}


def files_of(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob('*.py')) or [PACKAGE / f'{part}.py']


@pytest.mark.parametrize('part', ALLOWED)
def test_imports_run_one_way(part):
    files = files_of(part)
    assert all(path.exists() for path in files)
    for path in files:
        assert imports_of(path) <= ALLOWED[part] | {f'mmbiformer.{part}'}, path


def test_every_part_of_the_package_has_a_row():
    parts = {x.stem for x in PACKAGE.glob('[!_]*') if x.is_dir() or x.suffix == '.py'}
    assert parts == set(ALLOWED)


def test_nothing_in_the_package_uses_tools_or_tests():
    files = sorted(PACKAGE.rglob('*.py'))
    assert len(files) > 10
    outside = {'tools', 'tests', *(path.stem for path in Path(__file__).parent.rglob('*.py'))}
    for path in files:
        assert not imports_of(path) & outside, path


def test_ops_import_with_torch_alone():
    # Triton is imported by three files, and these only when they are needed.
    for path in files_of('ops'):
        if path.stem not in ('triton_kernels', 'triton_regions', 'triton_compiler'):
            own = {'mmbiformer.ops', 'mmbiformer.cpp', 'mmbiformer.files'}
            assert imports_of(path) <= {'torch', *own}, path
    code = (
        "import sys; sys.modules['triton'] = None\n"
        'import torch; from mmbiformer.ops import *\n'
        'q = torch.rand(1, 3, 3, 4); indices = torch.zeros(1, 4, 1, dtype=torch.int64)\n'
        'routed_attention(q, q, q, indices, partition_factor=2, num_heads=1, scale=1.0)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    # A torch that is built for GPUs says itself that its Triton is missing, and nobody else does.
    of_torch = (
        r'.*torch/utils/flop_counter\.py:\d+\] triton not found; .*\n'
        if torch.version.cuda
        else ''
    )
    assert re.fullmatch(of_torch, done.stderr)


@pytest.mark.parametrize(
    ('part', 'others'),
    [('detection', ('report', 'segmentation')), ('segmentation', ('report', 'detection'))],
)
def test_reports_are_made_of_evaluations_not_the_reverse(part, others):
    files = files_of(f'evaluation/{part}')
    assert len(files) > 4
    for path in files:
        package = '.'.join(path.relative_to(PACKAGE.parent).parts[:-1])
        modules = imported_modules(path.read_text(), package)
        for other in others:
            folder = f'mmbiformer.evaluation.{other}.'
            assert not any(f'{x}.'.startswith(folder) for x in modules), path


def test_nothing_but_tools_uses_the_benchmark():
    for path in sorted(PACKAGE.rglob('*.py')):
        assert path.parent.name == 'benchmark' or 'mmbiformer.benchmark' not in imports_of(path)


def test_nothing_uses_the_integrations():
    # Ultralytics is under another licence: its users alone import what imports it.
    for path in sorted(PACKAGE.rglob('*.py')):
        if path.parent.name != 'integrations':
            assert not imports_of(path) & {'mmbiformer.integrations', 'ultralytics'}, path


def test_the_package_itself_imports_no_mm_package_at_once():
    # Lazy imports inside functions are allowed here: they keep `mmbiformer.ops` light.
    tree = ast.parse((PACKAGE / '__init__.py').read_text())
    top = ast.Module([x for x in tree.body if isinstance(x, ast.Import | ast.ImportFrom)], [])
    parts = {'mmbiformer.loading', 'mmbiformer.stack'}
    assert imported_modules(ast.unparse(top), 'mmbiformer') == {'warnings', *parts}


@pytest.mark.parametrize(
    ('source', 'modules'),
    [
        ('import torch.nn as nn, os', {'torch.nn', 'os'}),
        ('from . import chunked', {'mmbiformer.ops'}),
        ('from .regions import x', {'mmbiformer.ops.regions'}),
        ('from ..layers import x', {'mmbiformer.layers'}),
        ('from .. import layers', {'mmbiformer.layers'}),
        ('from mmbiformer import ops, layers', {'mmbiformer.ops', 'mmbiformer.layers'}),
        ('def f():\n    from mmdet.registry import MODELS', {'mmdet.registry'}),
    ],
)
def test_imports_are_read_right(source, modules):
    assert imported_modules(source, 'mmbiformer.ops') == modules
