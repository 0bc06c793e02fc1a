"""How many kernels an eager computation launches, counted by operators that compute something."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

# Operators that give another look at memory, or memory without values.
_NO_LAUNCH = (
    'view', '_unsafe_view', 'permute', 'transpose', 't', 'unsqueeze', 'squeeze', 'expand',
    'select', 'slice', 'unbind', 'split', 'detach', 'alias', 'as_strided', 'empty',
    'new_empty', 'empty_like', 'empty_strided', 'promote_types',
)  # fmt: skip
_LAUNCHES = {'constant_pad_nd': 2}  # it fills, then copies; others launch one kernel


class CountLaunches(TorchDispatchMode):
    """Counts within ``with``: operator -> kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name not in _NO_LAUNCH:
            self.launches[name] += _LAUNCHES.get(name, 1)
        return operator(*args, **(kwargs or {}))

    def total(self) -> int:
        return self.launches.total()

    def __repr__(self) -> str:
        return repr(self.launches)
