"""Which objects a checkpoint may hold, and what stands for them while it is unpickled.

numpy's and mmengine's classes take any state that a file gives them, and a wrong one crashes the
process or worse. Stand-ins note the state, and :func:`settle` makes the objects of what is sound.
"""

import re
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .inspecting import CheckpointError

# What torch makes itself of weights and plain values. It would make more, and without these limits
# memory of any size too: ``bytearray(10**12)``.
_OF_TORCH = {
    *('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2'),
    *('torch._utils._rebuild_tensor_v3', 'torch._utils._rebuild_parameter'),
    *('torch.Size', 'torch.device', 'torch.storage.UntypedStorage'),
    *(str(x) for x in vars(torch).values() if isinstance(x, torch.dtype)),
    *(f'torch.{x}' for x in vars(torch) if x.endswith('Storage')),
    *('collections.OrderedDict', 'collections.Counter', '_codecs.encode'),
    *('builtins.set', 'builtins.complex'),
}
# Packages with classes of settings and notes, which training scripts leave beside weights: nothing
# here asks for them.
_LEFT_OUT = re.compile(
    r'(argparse|pathlib|typing|mmengine|mmcv|mmdet|mmseg|mmpretrain|mmcls|timm|omegaconf)\.'
    r'(\w+\.)*[A-Z]\w*|datetime\.\w+|types\.SimpleNamespace'
)
# Those of them that are dicts.
_DICTS = {
    *('mmengine.config.config.ConfigDict', 'mmcv.utils.config.ConfigDict'),
    *('addict.addict.Dict', 'yacs.config.CfgNode', 'easydict.EasyDict', 'collections.defaultdict'),
}
_NUMBERS_AND_TEXT = re.compile(r'[biufc]\d{1,2}|[SU]\d{1,6}')
_SLACK = 2**20  # a small tensor may be a view that repeats what is stored


def stand_ins_for(names: set[str], path: str) -> dict[str, Callable]:
    """A stand-in for each name in a file that torch does not know; see :func:`left_out`.

    Raises:
        CheckpointError: If a file names what no weights need.
    """
    stand_ins, refused = {}, []
    for name in sorted(names - _OF_TORCH):
        if name in STAND_INS:
            stand_ins[name] = STAND_INS[name]
        elif name in _DICTS:
            stand_ins[name] = _new_dict
        elif _LEFT_OUT.fullmatch(name):
            stand_ins[name] = _LeftOut
        else:
            refused.append(name)
    if refused:
        others = f' and {len(refused) - 5} more' if len(refused) > 5 else ''
        raise CheckpointError(
            f"'{path}' is not read, since it asks for {', '.join(refused[:5])}{others}: no "
            'weights need that, and it could run code; get weights alone (see SECURITY.md)'
        )
    return stand_ins


def left_out(stand_ins: dict[str, Callable]) -> list[str]:
    """The names whose objects do not come back."""
    return [name for name, stand_in in stand_ins.items() if stand_in is _LeftOut]


def settle(content: object, path: str, size: int) -> object:
    """Put objects in the place of their stand-ins; dicts and lists are changed in place.

    Args:
        content (object): What was unpickled.
        path (str): Its file, for messages.
        size (int): The file's size in bytes.

    Raises:
        CheckpointError: If tensors claim to be larger than the file.
        Exception: If a stand-in has no sound state: of many kinds.
    """
    done: dict[int, tuple] = {}  # id -> what it was, so that the id stays its own, and what it is
    stored: dict[int, int] = {}  # address -> bytes

    def visit(value: object) -> object:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            claimed = max(value.numel() * value.element_size(), sum(stored.values()))
            if claimed > size + _SLACK:
                raise CheckpointError(
                    f"'{path}' of {size:,} bytes claims a tensor of shape {tuple(value.shape)}, "
                    f'and {claimed:,} bytes: it is broken, restore it'
                )
            return value
        if not isinstance(value, dict | list | tuple | _Array | _History):
            return value
        if id(value) not in done:
            done[id(value)] = value, value  # a list may hold itself
            done[id(value)] = value, _settled(value, visit)
        return done[id(value)][1]

    return visit(content)


def _settled(value: object, visit: Callable) -> object:
    if isinstance(value, tuple):
        return type(value)(visit(x) for x in value)
    if isinstance(value, list):
        value[:] = [visit(x) for x in value]
    elif isinstance(value, dict):
        for key in value:
            value[key] = visit(value[key])
        if hasattr(value, '__dict__'):
            # Others could hide the dict's methods.
            for name in vars(value).keys() - {'_metadata'}:
                del vars(value)[name]
            visit(vars(value).get('_metadata'))
    elif isinstance(value, _Array):
        if value.array is None:
            raise ValueError('it has an array without numbers')
        return value.array
    elif isinstance(value, _History):
        state = value.state
        numbers, counts = visit(state['_log_history']), visit(state['_count_history'])
        return HistoryBuffer(numbers, counts, int(state['max_length']))
    return value


class _LeftOut:
    """Stands for an object that is not wanted."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _DType:
    """numpy's dtype, of numbers and text alone."""

    def __init__(self, code: str, *_: object) -> None:
        if not _NUMBERS_AND_TEXT.fullmatch(code):
            raise ValueError(f'it has an array of dtype {code}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """numpy's ndarray, which files make empty and give its numbers as a state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        order = 'F' if is_fortran else 'C'
        self.array = np.ndarray(shape, kind.dtype, bytes(data), order=order).copy(order)


class _History:
    """mmengine's HistoryBuffer."""

    def __setstate__(self, state: dict) -> None:
        self.state = state


def _new_array(*_: object) -> _Array:
    return _Array()


def _new_scalar(kind: _DType, data: bytes) -> np.generic:
    return np.frombuffer(data, kind.dtype, 1)[0]


def _new_dict(content: object = (), *_: object) -> OrderedDict:
    return OrderedDict(content if isinstance(content, dict) else {})


def _empty_bytes() -> bytes:
    return b''


def _method(owner: type, _: str) -> _LeftOut:
    """mmengine's histories name their own methods, which they have anyway."""
    if owner is not _History:
        raise ValueError('it asks for getattr')
    return _LeftOut()


STAND_INS = {
    'numpy.dtype': _DType,
    'numpy.ndarray': _Array,
    **{f'numpy.{core}.multiarray._reconstruct': _new_array for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _new_scalar for core in ('core', '_core')},
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'builtins.getattr': _method,
    'builtins.bytes': _empty_bytes,  # others are encoded text
}
