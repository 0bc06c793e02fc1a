"""Pooling of the keys and values within each region, so that attention has fewer of them.

The official module calls this KV down-sampling. It leaves two of its modes undone, ``fracpool``
and ``conv``; here :class:`FractionalPooling` and :class:`LearnedPooling` define them.

Shape letters: B batch, S partition factor, R = S * S regions, h and w height and width of a
region, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class RegionPooling(nn.Module, ABC):
    """Base of poolings of keys and values, region by region."""

    def forward(self, k: Tensor, v: Tensor, partition_factor: int) -> list[Tensor]:
        """Pool padded maps.

        Args:
            k, v (Tensor): (B, S * h, S * w, C), each with a C of its own.
            partition_factor (int): S.

        Returns:
            list[Tensor]: Keys and values, (B, S * h', S * w', C); a region keeps h' * w' tokens.
        """
        s = partition_factor
        regions = (rearrange(x, 'b (i h) (j w) c -> (b i j) c h w', i=s, j=s) for x in (k, v))
        pooled = self.pool(*regions)
        return [rearrange(x, '(b i j) c h w -> b (i h) (j w) c', i=s, j=s) for x in pooled]

    @abstractmethod
    def pool(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the regions of keys and of values, (B * R, C, h, w)."""


class AdaptivePooling(RegionPooling):
    """``side`` * ``side`` tokens of a region of any size (official: ada_avgpool, ada_maxpool)."""

    def __init__(self, function: Callable, side: int) -> None:
        super().__init__()
        self.function, self.side = function, side

    def pool(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(k, self.side), self.function(v, self.side)


class StridedPooling(RegionPooling):
    """One token for each ``ratio`` * ``ratio`` tokens of a region (official: avgpool, maxpool).

    What is left over at the bottom and on the right is dropped. A region that is smaller than that
    gives one token.
    """

    def __init__(self, function: Callable, ratio: int) -> None:
        super().__init__()
        self.function, self.ratio = function, ratio

    def pool(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        kernel = [min(self.ratio, length) for length in k.shape[2:]]
        return self.function(k, kernel), self.function(v, kernel)


class FractionalPooling(RegionPooling):
    """``side`` * ``side`` tokens of a region by fractional max pooling (Graham, arXiv 1412.6071).

    The kernel follows the region: it is ceil(h / side) tokens high and ceil(w / side) wide, and so
    at least as large as the steps between kernels, which overlap. Where these lie is drawn anew
    for each region in each training step, once for keys, values and all channels, so that a key
    stays with its value. In eval mode they lie as a draw of 0.5 puts them. A region with fewer
    rows or columns than ``side`` keeps them all.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def pool(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        draws = torch.rand if self.training else partial(torch.full, fill_value=0.5)
        # Not len(k): a recorded program would keep that number.
        draws = draws((k.shape[0], 1, 2), dtype=torch.float64, device=k.device)
        return self._pool(k, draws), self._pool(v, draws)

    def _pool(self, x: Tensor, draws: Tensor) -> Tensor:
        size = [min(self.side, length) for length in x.shape[2:]]
        kernel = [(length + n - 1) // n for length, n in zip(x.shape[2:], size, strict=True)]
        # PyTorch has it for float32 and float64 alone.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        draws = draws.to(wide.dtype).expand(-1, x.shape[1], -1)
        return F.fractional_max_pool2d(wide, kernel, size, _random_samples=draws).to(x.dtype)


class LearnedPooling(RegionPooling):
    """One token for each ``ratio`` * ``ratio`` tokens of a region, by a learned weighted sum.

    Keys and values have a depthwise convolution of stride ``ratio`` each, which begins as their
    mean. What is left over at the bottom and on the right is dropped; a region that is smaller
    than the kernel is padded with zeros.
    """

    def __init__(self, qk_dim: int, dim: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.pool_keys, self.pool_values = (
            nn.Conv2d(width, width, ratio, stride=ratio, groups=width) for width in (qk_dim, dim)
        )
        for conv in (self.pool_keys, self.pool_values):
            nn.init.constant_(conv.weight, 1 / ratio**2)
            nn.init.zeros_(conv.bias)

    def pool(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        height, width = k.shape[2:]
        missing = 0, max(0, self.ratio - width), 0, max(0, self.ratio - height)
        return self.pool_keys(F.pad(k, missing)), self.pool_values(F.pad(v, missing))


# Name -> what builds it, and the argument that it takes besides.
POOLINGS = {
    'AdaptiveAvg': (partial(AdaptivePooling, F.adaptive_avg_pool2d), 'side'),
    'AdaptiveMax': (partial(AdaptivePooling, F.adaptive_max_pool2d), 'side'),
    'Avg': (partial(StridedPooling, F.avg_pool2d), 'ratio'),
    'Max': (partial(StridedPooling, F.max_pool2d), 'ratio'),
    'Fractional': (FractionalPooling, 'side'),
    'Learned': (LearnedPooling, 'ratio'),
}


def build_region_pooling(qk_dim: int, dim: int, options: Mapping) -> RegionPooling:
    """Build a pooling for keys of width ``qk_dim`` and values of width ``dim``.

    Args:
        options (Mapping): ``type`` 'AdaptiveAvg', 'AdaptiveMax' or 'Fractional' with ``side``: so
            many by so many tokens remain of a region; or 'Avg', 'Max' or 'Learned' with ``ratio``:
            so many by so many tokens become one.

    Raises:
        ValueError: If the type is unknown, or other options than its own are given.
    """
    if not isinstance(options, Mapping) or options.get('type') not in POOLINGS:
        raise ValueError(
            f"pooling={options!r} must be a dict with 'type', one of {', '.join(POOLINGS)}"
        )
    size = {key: value for key, value in options.items() if key != 'type'}
    build, name = POOLINGS[options['type']]
    if list(size) != [name] or not isinstance(size[name], int) or size[name] < 1:
        raise ValueError(
            f"pooling '{options['type']}' takes {name}=..., an integer from 1 on, not {size}"
        )
    return build(qk_dim, dim, **size) if build is LearnedPooling else build(**size)
