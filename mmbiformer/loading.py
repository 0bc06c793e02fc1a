"""Has mmengine read checkpoints by this package, whichever of the two is imported first.

mmengine falls back to unpickling, which runs what a file says. Everything of mm that takes a
checkpoint goes through the schemes of its `CheckpointLoader`, and they are registered here by
mmengine's own call. Imports nothing but Python, so that the ops stay light.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULE = 'mmengine.runner.checkpoint'
# All that mmengine knows, as it writes them.
SCHEMES = (
    *('', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
    *('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://'),
)


def load_from_mmbiformer(filename: str, map_location: object = None) -> object:
    """Read a checkpoint of any scheme without running anything in it."""
    from .checkpoints.schemes import load  # needs mmengine

    return load(filename, map_location)


def place_loader() -> None:
    """Register the loader with mmengine, now or as soon as its loaders are imported."""
    if MODULE in sys.modules:
        _register(sys.modules[MODULE])
    else:
        sys.meta_path.insert(0, _Finder())


def _register(module: ModuleType) -> None:
    schemes = list(SCHEMES)
    module.CheckpointLoader.register_scheme(schemes, load_from_mmbiformer, force=True)


class _Finder(MetaPathFinder):
    """Finds one module as Python does, and registers the loader when the module has run."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader.exec_module = _then(spec.loader.exec_module, _register)
        return spec


def _then(first: Callable, second: Callable) -> Callable:
    def both(module: ModuleType) -> None:
        first(module)
        second(module)

    return both
