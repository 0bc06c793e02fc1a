"""Attentions and backbones in the models of Ultralytics (YOLOv5, YOLOv8, YOLO11 and others).

Importing this module is all that a model YAML with a line like these needs::

    - [-1, 1, BiLevelRoutingAttention, []]
    - [-1, 1, CloAttention, []]
    - [-1, 1, CloFormer, [xxs]]

``python -m mmbiformer.integrations.ultralytics train model=... data=...`` is Ultralytics' command
``yolo`` with this import. No file of Ultralytics is changed. docs/ultralytics.md has the rest.

Ultralytics is under AGPL-3.0, this package under Apache-2.0: nothing else in it imports this file.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor, nn
from torch.torch_version import TorchVersion as Version

from mmbiformer import layers
from mmbiformer.cli import run_tool
from mmbiformer.errors import UserError
from mmbiformer.layers.maps import to_channels_first, to_channels_last

OLDEST = Version('8.3')
DISTRIBUTION = 'ultralytics>=8.3,<8.5'


class Attention(nn.Module):
    """An attention of :mod:`mmbiformer.layers` as a line of a model YAML.

    The YAML does not give its width. Ultralytics calls a detector, a segmenter and their like once
    while it builds them, and this call makes the layer. A model that is built without a call, as
    some versions do with classifiers and RT-DETR, must name the width as ``dim``: a layer made
    later would be missing in the optimizer and in the averaged weights.

    Args:
        arguments: The arguments of the YAML line: nothing, or one mapping of options of the layer,
            which replace those of ``line_options``.

    Raises:
        UserError: If there are other arguments, or the layer cannot have these options.
    """

    layer: type[nn.Module]
    line_options: Mapping[str, object] = {}  # where the line has no arguments

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        self.options = {**self.line_options, **self._read(arguments)}
        self.attention = self._build(**self.options) if 'dim' in self.options else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        if self.attention is None:
            self.attention = self._build(dim=x.shape[1], **self.options).to(x)
        if x.shape[1] != self.options.get('dim', x.shape[1]):
            raise UserError(
                f'{type(self).__name__} in the model YAML: dim={self.options["dim"]}, but the row '
                f'before it gives {x.shape[1]} channels: write that number, or leave dim out'
            )
        return to_channels_first(self.attention(to_channels_last(x)))

    def _apply(self, *args, **kwargs) -> nn.Module:
        # Every training and inference of Ultralytics moves the model to its device first.
        if self.attention is None:
            name = type(self).__name__
            raise UserError(
                f'{name} does not know its width, as this model was not called while it was built:'
                f' write [-1, 1, {name}, [{{dim: 64}}]] in the YAML, 64 being its channels'
            )
        return super()._apply(*args, **kwargs)

    def _build(self, **options: object) -> nn.Module:
        with _named(type(self).__name__):
            return self.layer(**options).train(self.training)

    def _read(self, arguments: tuple) -> dict[str, object]:
        """The options in the arguments of the line."""
        name = type(self).__name__
        if not arguments:
            return {}
        if len(arguments) > 1 or not isinstance(arguments[0], dict):
            surplus = next((x for x in arguments if not isinstance(x, dict)), arguments[-1])
            raise UserError(
                f'{name} in the model YAML: argument {surplus!r} has no name: write '
                f'[-1, 1, {name}, []] or, with a named option, [-1, 1, {name}, [{{dim: 64}}]]'
            )
        _check_names(name, self.layer, arguments[0])
        return arguments[0]


class BiLevelRoutingAttention(Attention):
    """:class:`mmbiformer.layers.BiLevelRoutingAttention`, by default as the tutorials have it."""

    layer = layers.BiLevelRoutingAttention
    line_options = dict(num_heads=8, partition_factor=7, topk=4, lce_kernel=3)


class CloAttention(Attention):
    """:class:`mmbiformer.layers.CloAttention`, by default that of CloFormer's first stage."""

    layer = layers.CloAttention


class Backbone(nn.Module):
    """A backbone of :mod:`mmbiformer.backbones` as a line of a model YAML.

    It gives the maps of four stages, at strides 4, 8, 16 and 32. Ultralytics' ``Index`` takes one
    of them: ``[0, 1, Index, [64, 1]]`` is the map of 64 channels with number 1.

    Args:
        arguments: The arguments of the YAML line: the name of an architecture, or one mapping of
            options of the backbone.

    Raises:
        UserError: If there are other arguments, or the backbone cannot have these options.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        name = type(self).__name__
        if len(arguments) != 1 or not isinstance(arguments[0], str | dict):
            raise UserError(
                f'{name} in the model YAML: arguments {list(arguments)} are not one architecture: '
                f'write [-1, 1, {name}, [s]] or, with options, [-1, 1, {name}, [{{arch: s}}]]'
            )
        options = arguments[0] if isinstance(arguments[0], dict) else dict(arch=arguments[0])
        try:
            kind = getattr(importlib.import_module('mmbiformer.backbones'), name)
            from mmengine.model import initialize
        except ImportError as error:
            raise UserError(
                f'{name} in the model YAML needs mmengine ({error}): pip install onedl-mmengine'
            ) from error
        _check_names(name, kind, options)
        with _named(name):
            self.backbone = kind(**options)
            # mmengine's init_weights() would log two lines for each parameter. As there, weights
            # of a file have the last word.
            init_cfg = self.backbone.init_cfg or []
            init_cfg = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
            initialize(self.backbone, sorted(init_cfg, key=lambda x: x['type'] == 'Pretrained'))
        for module in self.backbone.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = BackboneBatchNorm2d

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to (B, C, H_i, W_i) of each stage."""
        return list(self.backbone(x))


class BackboneBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm of a backbone, with the ``eps`` and ``momentum`` that the backbone gave it.

    Ultralytics sets both in what it has built, wherever a module's type is exactly
    ``nn.BatchNorm2d``; then a backbone with official weights would not compute what it should.
    """


class BiFormer(Backbone):
    """:class:`mmbiformer.BiFormer`."""


class CloFormer(Backbone):
    """:class:`mmbiformer.CloFormer`."""


MODULES = (BiLevelRoutingAttention, CloAttention, BiFormer, CloFormer)


def _check_names(name: str, kind: type[nn.Module], options: Mapping[str, object]) -> None:
    """Raise UserError where a line of a model YAML has an option that is not known."""
    known = inspect.signature(kind).parameters
    for option, value in options.items():
        if option not in known:
            raise UserError(
                f'{name} in the model YAML: unknown option {option}={value!r}: '
                f'choose among {", ".join(known)}'
            )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have errors of what a line of a model YAML describes name the line."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f'{name} in the model YAML: {error}') from error


def register() -> None:
    """Make ``MODULES`` known to Ultralytics, here and in the processes that training starts.

    Raises:
        ImportError: If Ultralytics is missing or too old, or has a module of such a name.
    """
    _check_version()
    from ultralytics.nn import tasks

    for module in MODULES:
        other = getattr(tasks, module.__name__, module)
        if other.__module__ != __name__:
            raise ImportError(
                f'ultralytics has a {module.__name__} already, from {other.__module__}, as some '
                'tutorials write it into the package: pip install --force-reinstall --no-deps '
                f'"{DISTRIBUTION}"'
            )
    from ultralytics.models import rtdetr, yolo

    # ``parse_model`` looks up what a YAML names among the names of its module. A checkpoint names
    # its classes by their files, so that loading one imports this file, which registers.
    for module in MODULES:
        setattr(tasks, module.__name__, module)
    for task in filter(inspect.ismodule, [*vars(yolo).values(), rtdetr.model]):
        _replace_trainers(task)


def _check_version() -> None:
    try:
        import ultralytics
    except ImportError as error:
        raise ImportError(
            f'ultralytics does not import ({error}): pip install "{DISTRIBUTION}"'
        ) from error
    if Version(ultralytics.__version__) < OLDEST:
        raise ImportError(
            f'ultralytics {ultralytics.__version__} is too old: pip install "{DISTRIBUTION}"'
        )


def _replace_trainers(task: ModuleType) -> None:
    """Give each trainer of a task a subclass of the same name in this file, and its place.

    Training on several GPUs starts fresh processes that know nothing of this one but the class of
    its trainer, by file and name. So they import this file, which registers.
    """
    from ultralytics.engine.trainer import BaseTrainer

    for name, trainer in list(vars(task).items()):
        if inspect.isclass(trainer) and issubclass(trainer, BaseTrainer):
            own = type(name, (trainer,), {'__module__': __name__, '__doc__': trainer.__doc__})
            globals()[name] = own
            setattr(task, name, own)


def main() -> None:
    """Run Ultralytics' command ``yolo`` with ``MODULES`` registered."""
    try:
        # What runs now is called ``__main__``, a name under which no checkpoint finds its classes.
        importlib.import_module('mmbiformer.integrations.ultralytics')
    except ImportError as error:
        raise UserError(str(error)) from error
    from ultralytics.cfg import entrypoint

    entrypoint()


if __name__ == '__main__':
    run_tool(main, needs=())
else:
    register()
