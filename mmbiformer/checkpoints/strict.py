"""Reading checkpoints: official names to ours, and a strict account of what fits.

Three kinds of file are understood, with official names or ours: classification files (``model``),
mm files (``state_dict``, the backbone's names behind ``backbone.``) and bare state dicts.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .errors import UserError

# Official name pattern -> ours, applied in order to names without a prefix.
_RENAMES = (
    (re.compile(r'^extra_norms\.(\d)\.'), r'norm\1.'),
    (re.compile(r'\.pos_embed\.'), '.conv_position.'),
    (re.compile(r'\.attn\.qkv\.qkv\.'), '.attn.qkv.'),
    (re.compile(r'\.attn\.wo\.'), '.attn.proj.'),
    (re.compile(r'\.attn\.lepe\.'), '.attn.lce.'),
    (re.compile(r'\.mlp\.3\.'), '.mlp.2.'),
)
_CLASSIFIER = re.compile(r'^(norm|head)\.')
_OUT_NORM = re.compile(r'^norm(\d)\.')
_STAGE = re.compile(r'^(?:stages|downsample_layers)\.(\d)\.')
_LAST_NORM = re.compile(r'^stages\.(\d)\.(\d+)\.norm2\.weight$')
_BACKBONE = 'backbone.'


class CheckpointError(UserError):
    """A checkpoint does not fit the model; the message lists the names."""


def convert_name(name: str) -> str:
    """Our name of an official parameter or buffer; a name that is ours already stays."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def load_file(path: str | Path) -> Mapping:
    """Read a checkpoint file to the CPU without running any code in it.

    Objects that are no tensors or plain values, such as the training arguments in official files
    and the message hub in mm ones, come back as empty placeholders.

    Raises:
        CheckpointError: If the file is missing or is no checkpoint.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint '{path}' not found: check the path")
    try:
        # Files written before torch 1.6 are no archives, and torch cannot list what is in them.
        # Before 2.6, torch cannot list it of any file.
        find_objects = getattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', None)
        objects = find_objects(path) if find_objects and zipfile.is_zipfile(path) else []
        with torch.serialization.safe_globals([(_Ignored, name) for name in objects]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises anything from KeyError to RuntimeError
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint: {str(error).strip() or repr(error)}"
        ) from error
    if not isinstance(checkpoint, Mapping) or not all(isinstance(key, str) for key in checkpoint):
        raise CheckpointError(f"'{path}' holds no state dict: give a file of a model's weights")
    return checkpoint


def read_state_dict(checkpoint: Mapping) -> OrderedDict[str, Tensor]:
    """The backbone's tensors of a loaded checkpoint file, under our names.

    Args:
        checkpoint (Mapping): What the file holds: a state dict, or one under ``model`` or
            ``state_dict``. Where names begin with ``backbone.``, only these are taken.

    Returns:
        OrderedDict[str, Tensor]: Names of :class:`BiFormer`, and the classifier's where present.
    """
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    names = [name.removeprefix('module.') for name in checkpoint]
    in_detector = any(name.startswith(_BACKBONE) for name in names)
    state_dict = OrderedDict()
    for name, value in zip(names, checkpoint.values(), strict=True):
        if not in_detector or name.startswith(_BACKBONE):
            state_dict[convert_name(name.removeprefix(_BACKBONE))] = value
    return state_dict


def infer_arch(state_dict: Mapping[str, Tensor], arch_settings: Mapping[str, Mapping]) -> str:
    """Name the architecture that a backbone's tensors belong to.

    Args:
        state_dict (Mapping[str, Tensor]): As :func:`read_state_dict` returns it.
        arch_settings (Mapping[str, Mapping]): ``embed_dims`` and ``depths`` of every name.

    Raises:
        CheckpointError: If the tensors fit none of them.
    """
    widths: dict[int, int] = {}
    depths: dict[int, int] = {}
    for name, value in state_dict.items():
        if match := _LAST_NORM.match(name):
            stage, block = int(match[1]), int(match[2])
            widths[stage] = value.numel()
            depths[stage] = max(depths.get(stage, 0), block + 1)
    found = tuple(tuple(values[stage] for stage in sorted(values)) for values in (widths, depths))
    for arch, settings in arch_settings.items():
        if found == (settings['embed_dims'], settings['depths']):
            return arch
    if not widths:
        raise CheckpointError(
            'the checkpoint is of no BiFormer: none of its names is stages.0.0.norm2.weight'
        )
    raise CheckpointError(
        f'the checkpoint has embed_dims={found[0]} and depths={found[1]}, which is none of '
        f'{", ".join(arch_settings)}'
    )


def adapt_state_dict(module: nn.Module, state_dict: dict, prefix: str, strict: bool) -> list[str]:
    """Rewrite a state dict in place so that it holds just what a backbone loads.

    Args:
        module (nn.Module): The backbone.
        state_dict (dict): As ``Module._load_from_state_dict`` gets it.
        prefix (str): The backbone's name in the model, with a dot, or ''.
        strict (bool): Raise where something is missing, unexpected or wrongly shaped.

    Returns:
        list[str]: Names of the output norms that the state dict lacks: they stay new.

    Raises:
        CheckpointError: If ``strict`` and the state dict does not fit. Absent are allowed: the
            norms of the outputs, which classification files lack, and BatchNorm's counters.
    """
    if prefix:
        found = OrderedDict(
            (convert_name(name[len(prefix) :]), state_dict.pop(name))
            for name in [name for name in state_dict if name.startswith(prefix)]
        )
    else:
        found = read_state_dict(state_dict)
        state_dict.clear()
    expected = dict(_own_tensors(module))
    dropped = [name for name in found if name not in expected and _may_drop(name, module)]
    for name in dropped:
        del found[name]
    new = [name for name in expected if name not in found and _OUT_NORM.match(name)]
    if strict:
        _raise_misfits(found, expected, new)
        print_log(
            f'{type(module).__name__} checkpoint: {len(found)} tensors matched, '
            f'{_count(dropped)} dropped, {_count(new)} new (keep their initial values)',
            logger='current',
        )
    state_dict.update((prefix + name, value) for name, value in found.items())
    return new


class _Ignored:
    """Stands for an object in a checkpoint file that is not wanted."""

    def __new__(cls, *args: object) -> '_Ignored':
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _own_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _may_drop(name: str, module: nn.Module) -> bool:
    """The classifier, and what belongs to stages or outputs that the model was built without."""
    if _CLASSIFIER.match(name):
        return True
    if match := _OUT_NORM.match(name):
        return int(match[1]) not in module.out_indices
    if match := _STAGE.match(name):
        return int(match[1]) > module.out_indices[-1]
    return False


def _raise_misfits(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], new: list[str]
) -> None:
    missing = [
        name
        for name in expected
        if name not in found and name not in new and not name.endswith('num_batches_tracked')
    ]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f'{name} {tuple(value.shape)}, not {tuple(expected[name].shape)}'
        for name, value in found.items()
        if name in expected and value.shape != expected[name].shape
    ]
    misfits = {'missing': missing, 'unexpected': unexpected, 'of another shape': reshaped}
    if any(misfits.values()):
        raise CheckpointError(
            'the checkpoint is of another architecture than the backbone: '
            + '; '.join(
                f'{len(names)} {kind}: {", ".join(names)}'
                for kind, names in misfits.items()
                if names
            )
        )


def _count(names: list[str]) -> str:
    """'8 (norm0, norm1)': how many tensors, and of which modules."""
    modules = dict.fromkeys(name.split('.')[0] for name in names)
    return f'{len(names)} ({", ".join(modules)})' if names else '0'
