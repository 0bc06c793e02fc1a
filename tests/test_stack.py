"""Every fault of the installed stack gets one line with its remedy; a good stack gets none."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmbiformer import stack
from mmbiformer.errors import UserError

ROOT = Path(__file__).parents[1]
ONEDL = {
    'torch': '2.13.0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
    'torchvision': '0.28.0',
}
OPENMMLAB = {
    'torch': '2.4.1',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmpretrain': '1.2.0',
}
MENDS_MMENGINE = 'pip install "onedl-mmengine>=0.10.8,<1"'


@pytest.fixture
def install(monkeypatch):
    """Pretend that these distributions are installed, and no others."""

    def pretend(versions: dict[str, str], has_ops: bool = True) -> None:
        monkeypatch.setattr(stack, '_version', versions.get)
        monkeypatch.setattr(stack, '_has_ops', lambda: has_ops)

    return pretend


def test_the_real_stack_has_no_problem():
    assert stack.find_problems(tuple(stack.DISTRIBUTIONS)) == []
    stack.require(*stack.DISTRIBUTIONS)


@pytest.mark.parametrize(
    'versions',
    [
        ONEDL,
        OPENMMLAB,
        {**OPENMMLAB, 'torch': '2.13.0'},
        {**ONEDL, 'torch': '2.13.0+cu130'},
        {'torch': '2.13.0'},
        {},
    ],
    ids=['onedl', 'openmmlab', 'openmmlab, new torch', 'local version', 'torch alone', 'nothing'],
)
def test_stacks_that_work(versions, install):
    install(versions)
    assert stack.find_problems() == []


# What differs from the onedl stack (None: not installed), and the line.
PROBLEMS = {
    'mmcv too old': (
        {'onedl-mmcv': '2.2.0'},
        f'onedl-mmcv 2.2.0 does not fit (>=2.3, <3): {stack.BUILD_MMCV}',
    ),
    'mmdet too new': (
        {'onedl-mmdetection': '4.0.0'},
        'onedl-mmdetection 4.0.0 does not fit (>=3.5, <4): '
        'pip install "onedl-mmdetection>=3.5,<4"',
    ),
    'openmmlab mmcv too new': (
        {'onedl-mmcv': None, 'mmcv': '2.2.0'},
        f'mmcv 2.2.0 does not fit (>=2.0.0, <2.2): pip uninstall -y mmcv && {stack.BUILD_MMCV}',
    ),
    'mmseg 0.x': (
        {'onedl-mmsegmentation': None, 'mmsegmentation': '0.30.0'},
        'mmsegmentation 0.30.0 does not fit (>=1.1, <2): '
        'pip uninstall -y mmsegmentation && pip install "onedl-mmsegmentation>=1.4,<2"',
    ),
    'two distributions of one module': (
        {'mmdet': '3.3.0'},
        'onedl-mmdetection and mmdet overwrite each other as mmdet: '
        'pip uninstall -y onedl-mmdetection mmdet && pip install "onedl-mmdetection>=3.5,<4"',
    ),
}


@pytest.mark.parametrize(('change', 'line'), PROBLEMS.values(), ids=PROBLEMS)
def test_each_problem_has_one_line_with_its_remedy(change, line, install):
    versions = {**ONEDL, **change}
    install({name: version for name, version in versions.items() if version})
    assert stack.find_problems() == [line]
    with pytest.raises(UserError) as error:
        stack.require()
    assert str(error.value) == line


def test_missing_ops(install):
    install(ONEDL, has_ops=False)
    line = f'mmcv is installed without its compiled ops: {stack.BUILD_MMCV}'
    assert stack.find_problems() == [line]
    assert '--no-build-isolation' in line
    install({'torch': '2.13.0'}, has_ops=False)
    assert stack.find_problems() == []  # no mmcv, no ops to miss


@pytest.mark.parametrize(
    ('module', 'remedy'),
    [
        ('mmengine', MENDS_MMENGINE),
        ('mmcv', stack.BUILD_MMCV),
        ('mmdet', 'pip install "onedl-mmdetection>=3.5,<4"'),
        ('mmseg', 'pip install "onedl-mmsegmentation>=1.4,<2"'),
        ('mmpretrain', 'pip install "onedl-mmpretrain>=1.3,<2"'),
    ],
)
def test_missing_module(module, remedy, install):
    install({n: v for n, v in ONEDL.items() if n not in stack.DISTRIBUTIONS[module]})
    assert stack.find_problems() == []
    assert stack.find_problems((module,)) == [f'{module} is not installed: {remedy}']
    others = [name for name in stack.DISTRIBUTIONS if name != module]
    stack.require(*others)
    with pytest.raises(UserError, match=f'^{module} is not installed'):
        stack.require(*others, module)


@pytest.mark.parametrize(
    ('torch', 'asked'),
    [
        ('2.13.0+cpu', '"torchvision==0.28.*"'),
        ('2.4.1', '"torchvision==0.19.*"'),
        ('3.0.0', 'torchvision'),
    ],
)
def test_missing_torchvision_is_asked_for_with_the_version_that_fits(torch, asked, install):
    versions = {**ONEDL, 'torch': torch}
    del versions['torchvision']
    install(versions)
    assert stack.find_problems(('mmdet',)) == []
    line = f'torchvision is not installed, which mmpretrain imports: pip install {asked}'
    assert stack.find_problems(('mmpretrain',)) == [line]


def test_the_pinned_torchvision_is_the_one_asked_for(install):
    (pin,) = [
        line
        for line in (ROOT / 'requirements/4-mm.txt').read_text().splitlines()
        if line.startswith('torchvision')
    ]
    install({'torch': ONEDL['torch']})
    problem = stack.find_problems(('mmpretrain',))[-1]
    assert pin.startswith(problem.split('"')[1].removesuffix('*'))


@pytest.mark.parametrize('compiled', [True, False])
def test_ops_are_looked_for_without_importing_mmcv(compiled, tmp_path, monkeypatch):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('raise ImportError("broken")')
    if compiled:
        (package / '_ext.so').touch()
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert stack._has_ops() == compiled


def test_importing_the_package_warns_once(tmp_path):
    # An mmcv that hides the real one, as pip builds it where it finds no torch.
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    code = """
        import mmbiformer, mmbiformer.ops, importlib
        importlib.import_module('mmbiformer.backbones')
    """
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        env={'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in result.stderr.splitlines() if 'UserWarning' in line]
    assert len(lines) == 1, result.stderr
    assert lines[0].endswith(f'mmcv is installed without its compiled ops: {stack.BUILD_MMCV}')
