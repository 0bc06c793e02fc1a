"""The pins, the ranges of setup.py and the versions that the package accepts say the same."""

import runpy
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

from mmbiformer.stack import BUILD_MMCV, DISTRIBUTIONS

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'requirements').glob('[0-9]*.txt'))
PINS = [
    Requirement(line)
    for path in FILES
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


def test_remedy_names_the_pinned_mmcv() -> None:
    assert BUILD_MMCV.endswith(str(next(pin for pin in PINS if pin.name == 'onedl-mmcv')))


def test_makefile_installs_every_file_in_order() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    recipe = makefile[makefile.index('.venv/installed:') :].replace(
        '$(MMCV)', '-r requirements/3-mmcv.txt'
    )
    positions = [recipe.index(f'-r requirements/{path.name}') for path in FILES]
    assert positions == sorted(positions)
