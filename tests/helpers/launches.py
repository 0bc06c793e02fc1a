"""How many kernels an eager computation launches, counted by operators that compute something."""

from collections import Counter

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that give another look at memory, or memory without values.
_NO_LAUNCH = (
    'view', '_unsafe_view', 'permute', 'transpose', 't', 'unsqueeze', 'squeeze', 'expand',
    'select', 'slice', 'unbind', 'split', 'detach', 'alias', 'as_strided', 'empty',
    'new_empty', 'empty_like', 'empty_strided', 'promote_types', 'device',
)  # fmt: skip
_LAUNCHES = {'constant_pad_nd': 2}  # it fills, then copies; others launch one kernel


class CountLaunches(TorchDispatchMode):
    """Counts within ``with``: operator -> kernels, and bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        out = operator(*args, **(kwargs or {}))
        if name not in _NO_LAUNCH:
            self.launches[name] += _LAUNCHES.get(name, 1)
            tensors = {id(x): x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
            self.bytes += sum(x.numel() * x.element_size() for x in tensors.values())
        return out

    def casts(self) -> int:
        return self.launches['_to_copy'] + self.launches['_foreach_copy_']

    def total(self) -> int:
        return self.launches.total()

    def __repr__(self) -> str:
        return repr(self.launches)
