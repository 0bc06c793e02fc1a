"""Is the installed mm stack one that works? Answers in one line per problem, with its remedy.

Looks at metadata and files only: importing a broken mmcv is what this is to spare the user.
"""

import importlib.machinery
import importlib.util
from collections.abc import Collection
from importlib import metadata

from torch.torch_version import TorchVersion as Version

from .errors import UserError

BUILD_MMCV = (
    'pip install setuptools wheel packaging ninja && '
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps '
    'onedl-mmcv==2.3.6'
)
# Import name -> distribution -> versions that work, from the first to below the second. The onedl
# distributions continue OpenMMLab's own, which stopped in 2024, under the same import names.
DISTRIBUTIONS = {
    'mmengine': {'onedl-mmengine': ('0.10.8', '1'), 'mmengine': ('0.10.4', '1')},
    'mmcv': {'onedl-mmcv': ('2.3', '3'), 'mmcv': ('2.0.0', '2.2'), 'mmcv-lite': ('2.0.0', '2.2')},
    'mmdet': {'onedl-mmdetection': ('3.5', '4'), 'mmdet': ('3.1', '4')},
    'mmseg': {'onedl-mmsegmentation': ('1.4', '2'), 'mmsegmentation': ('1.1', '2')},
    'mmpretrain': {'onedl-mmpretrain': ('1.3', '2'), 'mmpretrain': ('1.2', '2')},
}


def find_problems(required: tuple[str, ...] = ()) -> list[str]:
    """One line for each thing that does not fit, with the command that mends it.

    Args:
        required (tuple[str]): Import names that must be there; others may be absent.

    Returns:
        list[str]: Empty where all is well.
    """
    problems = []
    for module, distributions in DISTRIBUTIONS.items():
        installed = {name: v for name in distributions if (v := _version(name)) is not None}
        remedy = _remedy(module, installed)
        if not installed and module in required:
            problems.append(f'{module} is not installed: {remedy}')
        elif len(installed) > 1:
            problems.append(
                f'{" and ".join(installed)} overwrite each other as {module}: {remedy}'
            )
        for name, version in installed.items():
            low, below = distributions[name]
            if not Version(low) <= Version(version) < Version(below):
                problems.append(f'{name} {version} does not fit (>={low}, <{below}): {remedy}')
        if module == 'mmcv' and installed and not _has_ops():
            problems.append(f'mmcv is installed without its compiled ops: {remedy}')
    torch = _version('torch')
    if 'mmpretrain' in required and _version('torchvision') is None:
        problems.append(
            'torchvision is not installed, which mmpretrain imports: '
            f'pip install {_fitting_torchvision(torch)}'
        )
    return problems


def _remedy(module: str, installed: Collection[str]) -> str:
    """The command that leaves the maintained distribution of a module, and no other."""
    name, (low, below) = next(iter(DISTRIBUTIONS[module].items()))
    install = BUILD_MMCV if module == 'mmcv' else f'pip install "{name}>={low},<{below}"'
    if set(installed) <= {name}:
        return install
    # They share files: uninstalling one of two takes the other's along.
    return f'pip uninstall -y {" ".join(installed)} && {install}'


def _fitting_torchvision(torch: str | None) -> str:
    """The torchvision of a version of torch; without a version pip may replace torch for it."""
    if torch is None or not Version('2.0') <= Version(torch) < Version('3'):
        return 'torchvision'
    minor = int(torch.split('.')[1])
    return f'"torchvision==0.{minor + 15}.*"'  # 0.15 is of torch 2.0, and so on


def require(*modules: str) -> None:
    """Raise :class:`UserError` with the first problem that keeps these modules from working."""
    if problems := find_problems(modules):
        raise UserError(problems[0])


def installed_versions() -> dict[str, str]:
    """The version of each distribution of the stack that is installed."""
    names = ['mmbiformer', *(name for known in DISTRIBUTIONS.values() for name in known)]
    return {name: version for name in names if (version := _version(name)) is not None}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _has_ops() -> bool:
    spec = importlib.util.find_spec('mmcv')
    return (
        spec is not None
        and importlib.machinery.PathFinder.find_spec('_ext', spec.submodule_search_locations)
        is not None
    )
