"""Reading checkpoints: official names to ours, and a strict account of what fits.

Three kinds of file are understood, with official names or ours: classification files (``model``),
mm files (``state_dict``, the backbone's names behind ``backbone.``) and bare state dicts.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

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
_BACKBONE = 'backbone.'


class CheckpointError(UserError):
    """A checkpoint does not fit the model; the message lists the names."""


def convert_name(name: str) -> str:
    """Our name of an official parameter or buffer; a name that is ours already stays."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


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


def adapt_state_dict(module: nn.Module, state_dict: dict, prefix: str, strict: bool) -> None:
    """Rewrite a state dict in place so that it holds just what a backbone loads.

    Args:
        module (nn.Module): The backbone.
        state_dict (dict): As ``Module._load_from_state_dict`` gets it.
        prefix (str): The backbone's name in the model, with a dot, or ''.
        strict (bool): Raise where something is missing, unexpected or wrongly shaped.

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
    modules = dict.fromkeys('.'.join(name.split('.')[:1]) for name in names)
    return f'{len(names)} ({", ".join(modules)})' if names else '0'
