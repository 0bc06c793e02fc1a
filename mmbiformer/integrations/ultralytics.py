"""Bi-level routing attention in the models of Ultralytics (YOLOv5, YOLOv8, YOLO11 and others).

Importing this module is all that a model YAML with the line of the tutorials needs::

    - [-1, 1, BiLevelRoutingAttention, []]

``python -m mmbiformer.integrations.ultralytics train model=... data=...`` is Ultralytics' command
``yolo`` with this import. No file of Ultralytics is changed. docs/ultralytics.md has the rest.

Ultralytics is under AGPL-3.0, this package under Apache-2.0: nothing else in it imports this file.
"""

import importlib
import inspect
from types import ModuleType

from torch import Tensor, nn
from torch.torch_version import TorchVersion as Version

from mmbiformer.cli import run_tool
from mmbiformer.errors import UserError
from mmbiformer.layers import BiLevelRoutingAttention as Layer
from mmbiformer.layers.maps import to_channels_first, to_channels_last

OLDEST = Version('8.3')
DISTRIBUTION = 'ultralytics>=8.3,<8.5'
NAME = 'BiLevelRoutingAttention'
# What the module of the tutorials does where its line in the YAML has no arguments.
TUTORIAL_OPTIONS = dict(num_heads=8, partition_factor=7, topk=4, lce_kernel=3)


class BiLevelRoutingAttention(nn.Module):
    """:class:`mmbiformer.layers.BiLevelRoutingAttention` as a line of a model YAML.

    The YAML does not give its width. Ultralytics calls a detector, a segmenter and their like once
    while it builds them, and this call makes the layer. A model that is built without a call, as
    some versions do with classifiers and RT-DETR, must name the width as ``dim``: a layer made
    later would be missing in the optimizer and in the averaged weights.

    Args:
        arguments: The arguments of the YAML line: nothing, or one mapping of options of the layer,
            which replace those of ``TUTORIAL_OPTIONS``.

    Raises:
        UserError: If there are other arguments, or the layer cannot have these options.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        self.options = {**TUTORIAL_OPTIONS, **_options(arguments)}
        self.attention = self._build(**self.options) if 'dim' in self.options else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        if self.attention is None:
            self.attention = self._build(dim=x.shape[1], **self.options).to(x)
        return to_channels_first(self.attention(to_channels_last(x)))

    def _apply(self, *args, **kwargs) -> nn.Module:
        # Every training and inference of Ultralytics moves the model to its device first.
        if self.attention is None:
            raise UserError(
                f'{NAME} does not know its width, as this model was not called while it was built:'
                f' write [-1, 1, {NAME}, [{{dim: 64}}]] in the YAML, 64 being its channels'
            )
        return super()._apply(*args, **kwargs)

    def _build(self, **options: object) -> Layer:
        try:
            return Layer(**options).train(self.training)
        except ValueError as error:
            raise UserError(f'{NAME} in the model YAML: {error}') from error


def _options(arguments: tuple) -> dict[str, object]:
    """The options in the arguments of a YAML line."""
    remedy = f'write [-1, 1, {NAME}, []] or [-1, 1, {NAME}, [{{num_heads: 4, topk: 8}}]]'
    if not arguments:
        return {}
    if len(arguments) > 1 or not isinstance(arguments[0], dict):
        surplus = next((x for x in arguments if not isinstance(x, dict)), arguments[-1])
        raise UserError(f'{NAME} in the model YAML: argument {surplus!r} has no name: {remedy}')
    known = inspect.signature(Layer).parameters
    for name, value in arguments[0].items():
        if name not in known:
            raise UserError(
                f'{NAME} in the model YAML: unknown option {name}={value!r}: '
                f'choose among {", ".join(known)}'
            )
    return arguments[0]


def register() -> None:
    """Make the attention known to Ultralytics, here and in the processes that training starts.

    Raises:
        ImportError: If Ultralytics is missing or too old, or has an attention of this name.
    """
    _check_version()
    from ultralytics.nn import tasks

    other = getattr(tasks, NAME, BiLevelRoutingAttention)
    if other.__module__ != __name__:
        raise ImportError(
            f'ultralytics has a {NAME} already, from {other.__module__}, as some tutorials write '
            f'it into the package: pip install --force-reinstall --no-deps "{DISTRIBUTION}"'
        )
    from ultralytics.models import rtdetr, yolo

    # ``parse_model`` looks up what a YAML names among the names of its module. A checkpoint names
    # its classes by their files, so that loading one imports this file, which registers.
    tasks.BiLevelRoutingAttention = BiLevelRoutingAttention
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
    """Run Ultralytics' command ``yolo`` with the attention registered."""
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
