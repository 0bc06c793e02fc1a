"""Values that are not finite: in the weights of a file, or wherever there are named tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .inspecting import CheckpointError

# Where files have weights, besides at their top.
_WEIGHTS = ('state_dict', 'model', 'ema_state_dict')
# Others, as of 8 bits, cannot be asked in every torch.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_finite(content: Any, path: str) -> None:
    """Refuse a checkpoint whose weights are not finite: raises CheckpointError.

    What an optimizer or a history of values holds is left alone.
    """
    if not isinstance(content, Mapping):
        return
    parts = [content, *(content.get(x) for x in _WEIGHTS)]
    named = ((str(k), x) for part in parts if isinstance(part, Mapping) for k, x in part.items())
    if found := list_nonfinite(named):
        raise CheckpointError(
            f"'{path}' holds weights that are not finite: {first_of(found)}. The run that wrote "
            'it had diverged: take an earlier checkpoint'
        )


def list_nonfinite(named: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of tensors with values that are not finite, each with what it has: 'fc.bias, nan'.

    What is no tensor of floating-point numbers is finite.
    """
    return [f'{name} ({kind_of(x)})' for name, x in named if _is_asked(x) and not _is_finite(x)]


def kind_of(values: Tensor) -> str:
    """'nan' or 'inf': the worse of what a tensor has."""
    return 'nan' if values.isnan().any() else 'inf'


def first_of(found: list[str]) -> str:
    """'fc.bias (nan) and 12 more'."""
    return found[0] + (f' and {len(found) - 1} more' if len(found) > 1 else '')


def _is_asked(value: Any) -> bool:
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided
    return is_dense and not value.is_meta and value.dtype in _DTYPES


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())
