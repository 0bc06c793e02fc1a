"""The pins, the ranges of setup.py and the versions that the package accepts say the same."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

from mmbiformer.stack import BUILD_MMCV, DISTRIBUTIONS

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'requirements').glob('[0-9]*.txt'))
ULTRALYTICS = ROOT / 'requirements/ultralytics.txt'
PINS = [
    Requirement(line)
    for path in [*FILES, ULTRALYTICS]
    for line in path.read_text().splitlines()
    if line and not line.startswith('#')
]


@pytest.fixture(scope='module')
def extras() -> dict[str, list[Requirement]]:
    with pytest.MonkeyPatch.context() as patch:
        arguments = {}
        patch.setattr(setuptools, 'setup', lambda **options: arguments.update(options))
        runpy.run_path(str(ROOT / 'setup.py'))
    return {
        name: [Requirement(text) for text in texts]
        for name, texts in arguments['extras_require'].items()
    }


def test_everything_is_pinned_to_one_version() -> None:
    assert len(PINS) > 10
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == '=='


def test_every_pin_is_justified() -> None:
    page = (ROOT / 'CONTRIBUTING.md').read_text()
    table = {
        name.strip()
        for line in page.splitlines()
        if line.startswith('| ')
        for name in line.split('|')[1].split(',')
    }
    assert {pin.name for pin in PINS} <= table


def test_pins_lie_in_the_ranges_of_the_extra(extras) -> None:
    pinned = {pin.name: next(iter(pin.specifier)).version for pin in PINS}
    for requirement in extras['onedl']:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


@pytest.mark.parametrize('family', ['onedl', 'openmmlab'])
def test_extras_ask_for_what_the_package_accepts(extras, family) -> None:
    accepted = {name: bounds for names in DISTRIBUTIONS.values() for name, bounds in names.items()}
    asked = {
        requirement.name: {s.operator: s.version for s in requirement.specifier}
        for requirement in extras[family]
        if requirement.name in accepted
    }
    assert len(asked) == 4
    for name, bounds in asked.items():
        assert bounds == dict(zip(('>=', '<'), accepted[name], strict=True)), name


def test_extra_classification_is_what_the_package_accepts_and_holds_the_pin(extras) -> None:
    (asked,) = extras['classification']
    bounds = {s.operator: s.version for s in asked.specifier}
    assert bounds == dict(zip(('>=', '<'), DISTRIBUTIONS['mmpretrain'][asked.name], strict=True))
    (pin,) = [pin for pin in PINS if pin.name == asked.name]
    assert asked.specifier.contains(next(iter(pin.specifier)).version)


def test_both_environments_have_the_same_torchvision() -> None:
    assert len({str(pin) for pin in PINS if pin.name == 'torchvision'}) == 1


def test_remedy_names_the_pinned_mmcv() -> None:
    assert BUILD_MMCV.endswith(str(next(pin for pin in PINS if pin.name == 'onedl-mmcv')))


def test_makefile_installs_every_file_in_order() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    recipe = makefile[makefile.index('.venv/installed:') :].replace(
        '$(MMCV)', '-r requirements/3-mmcv.txt'
    )
    positions = [recipe.index(f'-r requirements/{path.name}') for path in FILES]
    assert positions == sorted(positions)


def test_extra_ultralytics_is_what_its_errors_ask_for_and_holds_the_pin(extras) -> None:
    (asked,) = extras['ultralytics']
    source = (ROOT / 'mmbiformer/integrations/ultralytics.py').read_text()
    assert Requirement(re.search(r"DISTRIBUTION = '(.+)'", source)[1]) == asked
    oldest = re.search(r"OLDEST = Version\('(.+)'\)", source)[1]
    assert f'>={oldest}' in str(asked)
    (pin,) = [pin for pin in PINS if pin.name == 'ultralytics']
    assert asked.specifier.contains(next(iter(pin.specifier)).version)


def test_makefile_installs_ultralytics_after_torch_and_opencv_last() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    recipe = makefile[makefile.rindex('.venv-ultralytics/installed:') :]
    names = ['2-torch', 'ultralytics', '5-headless']
    positions = [recipe.index(f'-r requirements/{name}.txt') for name in names]
    assert positions == sorted(positions)


def find_python(path: Path, python: str = '') -> subprocess.CompletedProcess:
    script = str(ROOT / 'requirements/find_python.sh')
    return subprocess.run(
        ['/bin/sh', script, python], env={'PATH': str(path)}, capture_output=True, text=True
    )


def put(folder: Path, name: str, *lines: str) -> None:
    """An executable script of that name."""
    path = folder / name
    path.write_text('\n'.join(['#!/bin/sh', *lines]))
    path.chmod(0o755)


def put_python(folder: Path, name: str, has_venv: bool = True, has_headers: bool = True) -> None:
    """What answers as a Python does to what the script asks."""
    include = folder / f'{name}-include'
    include.mkdir()
    if has_headers:
        (include / 'Python.h').touch()
    imports_venv = f'exit {0 if has_venv else 1}'
    put(
        folder,
        name,
        f'case "$2" in *ensurepip*) {imports_venv};; *include*) echo {include};; esac',
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that is the whole PATH, with a compiler."""
    put(tmp_path, 'g++')
    return tmp_path


def test_first_python_that_runs_is_taken(path) -> None:
    put_python(path, 'python3.13')
    assert find_python(path).stdout == 'python3.13\n'
    put_python(path, 'python3.12')
    assert find_python(path).stdout == 'python3.12\n'
    put(path, 'python3.11', 'exit 127')  # a stub, as pyenv leaves it
    assert find_python(path).stdout == 'python3.12\n'
    put_python(path, 'python3.11')
    assert find_python(path).stdout == 'python3.11\n'


def test_named_python_decides(path) -> None:
    put_python(path, 'python3.11')
    put_python(path, 'python3.14')
    assert find_python(path, 'python3.14').stdout == 'python3.14\n'
    assert find_python(path, str(path / 'python3.14')).stdout == f'{path}/python3.14\n'
    result = find_python(path, 'python3.10')
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.startswith('None of these runs: python3.10. ')


@pytest.mark.parametrize(
    ('lacking', 'said'),
    [
        ('python', 'None of these runs: python3.11 python3.12 python3.13. '),
        ('venv', 'python3.12 has no venv module'),
        ('headers', 'python3.12 has no headers (Python.h)'),
        ('compiler', 'No g++'),
    ],
)
def test_what_is_missing_is_said_in_one_line(path, lacking, said) -> None:
    put(path, 'python3.11', 'exit 127')
    if lacking != 'python':
        put_python(
            path, 'python3.12', has_venv=lacking != 'venv', has_headers=lacking != 'headers'
        )
    if lacking == 'compiler':
        (path / 'g++').unlink()
    result = find_python(path)
    assert (result.returncode, result.stdout) == (1, '')
    assert result.stderr.startswith(said)
    assert result.stderr.count('\n') == 1
