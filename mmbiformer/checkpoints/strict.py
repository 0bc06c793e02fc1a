"""A strict account of what of a checkpoint fits a backbone.

Three kinds of file are understood, with official names or ours: classification files (``model``),
mm files (``state_dict``, the backbone's names behind ``backbone.``) and bare state dicts.
"""

import re
from collections.abc import Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

from .inspecting import CheckpointError
from .names import Names

# Names of ours that every staged backbone has.
_OUT_NORM = re.compile(r'^norm(\d)\.')
_STAGE = re.compile(r'^(?:stages|downsample_layers)\.(\d)\.')
_BACKBONE = 'backbone.'
SHOWN = 5  # names of each kind in a message


def backbone_tensors(checkpoint: Mapping) -> dict[str, Tensor]:
    """The backbone's tensors of a loaded file under the file's names, without prefixes.

    Where names begin with ``backbone.``, only these are taken.
    """
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    names = [name.removeprefix('module.') for name in checkpoint]
    in_detector = any(name.startswith(_BACKBONE) for name in names)
    return {
        name.removeprefix(_BACKBONE): value
        for name, value in zip(names, checkpoint.values(), strict=True)
        if not in_detector or name.startswith(_BACKBONE)
    }


def adapt_state_dict(module: nn.Module, state_dict: dict, prefix: str, strict: bool) -> list[str]:
    """Rewrite a state dict in place so that it holds just what a backbone loads.

    ``module`` is the backbone, ``state_dict`` what its ``_load_from_state_dict`` gets, and
    ``prefix`` the backbone's name in the model, with a dot, or ''.

    Returns:
        list[str]: Names of the output norms that the state dict lacks: they stay new.

    Raises:
        CheckpointError: If two names of the state dict are one of ours, or if ``strict`` and it
            does not fit. Absent are allowed: the norms of dense outputs, which classification
            files lack, and BatchNorm's counters.
    """
    names = module.checkpoint_names
    if prefix:
        own = [name for name in state_dict if name.startswith(prefix)]
        in_file = {name[len(prefix) :]: state_dict.pop(name) for name in own}
    else:
        in_file = backbone_tensors(state_dict)
        state_dict.clear()
    file_names: dict[str, str] = {}
    for name in in_file:
        if (first := file_names.setdefault(names.ours(name), name)) != name:
            raise CheckpointError(
                f'the checkpoint has {first} and {name}, which are the same tensor: delete one'
            )
    expected = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors = {
        name: _as_linear(in_file[theirs], expected.get(name))
        for name, theirs in file_names.items()
    }
    dropped = [name for name in tensors if name not in expected and _may_drop(name, module)]
    for name in dropped:
        del tensors[name]
    new = [name for name in expected if name not in tensors and _OUT_NORM.match(name)]
    if strict:
        _raise_misfits(tensors, expected, new, file_names, names)
    print_log(
        f'{type(module).__name__} checkpoint: {len(tensors.keys() & expected)} tensors matched, '
        f'{_count(dropped)} dropped, {_count(new)} new (keep their initial values)',
        logger='current',
    )
    state_dict.update((prefix + name, value) for name, value in tensors.items())
    return new


def _may_drop(name: str, module: nn.Module) -> bool:
    """Whether a name is the classifier's, or of a stage or output that was not built."""
    if re.match(module.checkpoint_names.classifier, name):
        return True
    if match := _OUT_NORM.match(name):
        return module.output_norm != 'dense' or int(match[1]) not in module.out_indices
    if match := _STAGE.match(name):
        return int(match[1]) > module.out_indices[-1]
    return False


def _as_linear(value: Tensor, expected: Tensor | None) -> Tensor:
    """The weight of a 1x1 convolution as that of a linear layer, where one is expected."""
    is_pointwise = getattr(value, 'ndim', 0) == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if is_pointwise and getattr(expected, 'ndim', 4) == 2 else value


def _raise_misfits(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    new: list[str],
    file_names: Mapping[str, str],
    names: Names,
) -> None:
    """Raise CheckpointError where tensors are not those that are expected.

    ``file_names`` tells the file's name of each of ours, which messages say too.
    """
    is_official = any(x != ours and x == names.official(ours) for ours, x in file_names.items())

    def describe(name: str) -> str:
        if file_names.get(name, name) != name:
            return f'{name} (in the file: {file_names[name]})'
        if is_official and name not in file_names and names.official(name) != name:
            return f'{name} (official name: {names.official(name)})'
        return name

    missing = [
        describe(name)
        for name in expected
        if name not in tensors and name not in new and not name.endswith('num_batches_tracked')
    ]
    others = [describe(name) for name, value in tensors.items() if not isinstance(value, Tensor)]
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    unexpected = [describe(name) for name in tensors if name not in expected]
    reshaped = [
        f'{describe(name)} {tuple(value.shape)}, not {tuple(expected[name].shape)}'
        for name, value in tensors.items()
        if name in expected and value.shape != expected[name].shape
    ]
    kinds = {'that are no tensors': others, 'missing': missing, 'unexpected': unexpected}
    kinds['of another shape'] = reshaped
    misfits = [f'{len(x)} {kind}: {_first(x)}' for kind, x in kinds.items() if x]
    if misfits:
        raise CheckpointError(
            f'the checkpoint is of another architecture than the backbone: {"; ".join(misfits)}'
        )


def _first(names: list[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def _count(names: list[str]) -> str:
    """'8 (norm0, norm1)': how many tensors, and of which modules."""
    modules = dict.fromkeys(name.split('.')[0] for name in names)
    return f'{len(names)} ({", ".join(modules)})' if names else '0'
