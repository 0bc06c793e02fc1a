"""Whether neck and heads of a built model take the channels that the part before gives."""

import copy
from collections.abc import Mapping, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmbiformer.errors import UserError

SIDE = 128  # of the image, in pixels; the strides of most backbones divide it
HEADS = ('bbox_head', 'rpn_head', 'decode_head', 'auxiliary_head', 'head')


def check_channels(model: nn.Module, cfg: ConfigDict, scope: str) -> None:
    """Refuse a neck or head that declares other channels than it gets, and fails on them.

    The parts run on maps without values (PyTorch's device 'meta'), which takes no memory and next
    to no time. What does not run so is left to training.

    Args:
        model (nn.Module): As built from the config; nothing of it changes.
        cfg (ConfigDict): ``model`` of the config.
        scope (str): The config's default scope.

    Raises:
        UserError: Names both parts and their channels.
    """
    backbone = getattr(model, 'backbone', None)
    giver, maps = f'model.backbone ({type(backbone).__name__})', _maps_of(backbone)
    neck = getattr(model, 'neck', None)
    if maps and neck is not None:
        part, path = cfg.get('neck'), 'model.neck'
        if isinstance(part, Mapping) and isinstance(part.get('neck'), Mapping):
            # Around another neck, as AttentionNeck: what is within takes and gives as much.
            part, path = part['neck'], 'model.neck.neck'
            with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
                neck = MODELS.build(part)
        _compare(neck, part, path, giver, maps)
        giver, maps = f'model.neck ({type(neck).__name__})', _run(neck, maps)
    for key in HEADS:
        head, part = getattr(model, key, None), cfg.get(key)
        several = isinstance(part, Sequence)
        pairs = zip(head, part, strict=False) if several and head is not None else [(head, part)]
        for i, (module, declared) in enumerate(pairs):
            if maps and isinstance(module, nn.Module):
                path = f'model.{key}.{i}' if several else f'model.{key}'
                _compare(module, declared, path, giver, maps)


def _compare(module: nn.Module, part: object, path: str, giver: str, maps: list[Tensor]) -> None:
    """Refuse a part that runs with the channels that it declares, and not with those it gets."""
    declared = part.get('in_channels') if isinstance(part, Mapping) else None
    if not isinstance(declared, int | Sequence):
        return
    taken = part.get('in_index')
    if (
        _run(module, maps) is not None
        or _run(module, _with_channels(maps, declared, taken)) is None
    ):
        return
    given = [x.shape[1] for x in maps]
    said = f'{path}.in_channels={_plain(declared)}'
    if taken is not None:
        said += f' of in_index={_plain(taken)}'
    raise UserError(f'{said}: {giver} gives maps of {given} channels: make them fit')


def _plain(value: object) -> object:
    return list(value) if isinstance(value, Sequence) else value


def _with_channels(maps: list[Tensor], declared: int | Sequence, taken: object) -> list[Tensor]:
    """Maps like those given, with the channels that a part declares for those that it takes."""
    channels = [x.shape[1] for x in maps]
    if isinstance(declared, int) and taken is None:
        channels = [declared] * len(maps)
    elif taken is None:
        channels = list(declared)
    else:
        indices = list(taken) if isinstance(taken, Sequence) else [taken]
        widths = declared if isinstance(declared, Sequence) else [declared] * len(indices)
        channels += [1] * (max(indices) + 1 - len(channels))
        for i, width in zip(indices, widths, strict=False):
            channels[i] = width
    side = maps[0].shape[-1]
    sides = [x.shape[-1] for x in maps] + [side] * len(channels)
    return [_map(*pair) for pair in zip(channels, sides, strict=False)]


def _map(channels: int, side: int) -> Tensor:
    return torch.empty(1, channels, side, side, device='meta')


def _maps_of(backbone: nn.Module | None) -> list[Tensor] | None:
    """The maps of a backbone, without their values."""
    if hasattr(backbone, 'compile_blocks'):  # ours say it, and would log by which path they run
        return [_map(backbone.embed_dims[i], SIDE >> (i + 2)) for i in backbone.out_indices]
    return None if backbone is None else _run(backbone, _map(3, SIDE))


def _run(module: nn.Module, inputs: object) -> list | None:
    """What a module gives, or None where it does not run on what it is given."""
    # Not by functional_call, which leaves its tensors in modules that a head has several times.
    values = {id(x): torch.empty_like(x, device='meta') for x in module.buffers()}
    for x in module.parameters():
        values[id(x)] = nn.Parameter(torch.empty_like(x, device='meta'), x.requires_grad)
    try:
        copied = copy.deepcopy(module, values)
        copied.eval()  # which gives nothing, of mmdet's ResNet
        with torch.no_grad():
            out = copied(inputs)
    except Exception:  # whatever it raises: it is asked whether it runs
        return None
    return list(out) if isinstance(out, Sequence) else [out]
