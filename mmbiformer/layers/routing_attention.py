"""Bi-level routing attention, with all that the official module offers."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbiformer.ops import routed_attention
from mmbiformer.ops.any_size import pad_to_regions
from mmbiformer.ops.backends import CHOICES
from mmbiformer.ops.routing import Routing, route

from .attention import LCE_KERNEL, Attention, build_lce
from .checks import check_choice, check_divides, check_int
from .depthwise import add_depthwise_conv
from .maps import to_channels_first, to_channels_last
from .region_pooling import build_region_pooling

# Official names of the module's parameters -> ours.
OFFICIAL_NAMES = {'qkv.qkv': 'qkv', 'wo': 'proj', 'lepe': 'lce', 'router.emb': 'router'}
PADDINGS = 'official', 'masked'
ROUTINGS = 'hard', 'soft', 'straight_through'
Pads = tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]


class BiLevelRoutingAttention(Attention):
    """Bi-level routing attention (paper, section 3.2 and algorithm 1).

    The softmax scale is ``qk_dim ** -0.5``, over the whole width and not over one head: the
    released models were trained so. Official state dicts load by their own names.

    Args:
        dim (int): Number of channels C.
        num_heads (int): Number of attention heads.
        partition_factor (int): S; the map is cut into S x S regions.
        topk (int): Number of regions each region attends to.
        padding (str): 'official': padding tokens are zeros before the projection, so they carry
            its bias and take part in region means, softmax and LCE. 'masked': they take no part.
        backend (str): Backend of :func:`mmbiformer.ops.routed_attention`.
        qk_dim (int, optional): Width of queries and keys. Defaults to C.
        scale (float, optional): Softmax scale. Defaults to ``qk_dim ** -0.5``.
        lce_kernel (int, optional): Odd side of the kernel of LCE, 5 in BiFormer; None for no LCE.
        output_projection (bool): Whether a linear layer follows. Defaults to True.
        pooling (Mapping, optional): How keys and values of a region are pooled: arguments of
            :func:`build_region_pooling`, as ``dict(type='AdaptiveAvg', side=4)``.
        routing (str): 'hard': the choice of regions has no gradient. 'soft': keys and values are
            multiplied by the softmax over the affinities of the chosen regions.
            'straight_through': they are not, but gradients of the affinities are as if they were
            (Bengio et al., arXiv 1308.3432).
        parametric_routing (bool): Whether a linear layer is applied to region means first; needs
            routing that is not 'hard', or it would not learn.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        partition_factor: int,
        topk: int,
        padding: str = 'official',
        backend: str = 'auto',
        *,
        qk_dim: int | None = None,
        scale: float | None = None,
        lce_kernel: int | None = LCE_KERNEL,
        output_projection: bool = True,
        pooling: Mapping | None = None,
        routing: str = 'hard',
        parametric_routing: bool = False,
    ) -> None:
        super().__init__()
        counts = dict(num_heads=num_heads, partition_factor=partition_factor, topk=topk)
        optional = dict(qk_dim=qk_dim, lce_kernel=lce_kernel)
        counts |= {name: value for name, value in optional.items() if value is not None}
        for name, value in dict(dim=dim, **counts).items():
            check_int(name, value)
        qk_dim = dim if qk_dim is None else qk_dim
        check_divides('num_heads', num_heads, dim)
        check_divides('num_heads', num_heads, qk_dim, 'qk_dim')
        if topk > partition_factor**2:
            raise ValueError(
                f'topk={topk} must be from 1 to the {partition_factor**2} regions of '
                f'partition_factor={partition_factor}'
            )
        if lce_kernel is not None and lce_kernel % 2 == 0:
            raise ValueError(f'lce_kernel={lce_kernel} must be odd, or None for no LCE')
        choices = dict(padding=PADDINGS, backend=CHOICES, routing=ROUTINGS)
        for name, value in dict(padding=padding, backend=backend, routing=routing).items():
            check_choice(name, value, choices[name])
        if parametric_routing and (routing == 'hard' or topk == 1):
            raise ValueError(
                "parametric_routing needs routing='soft' or 'straight_through', and topk=2 or "
                'more: else its layer would get no gradient'
            )
        if pooling is not None and padding != 'official':
            raise ValueError(
                f"pooling needs padding='official', not '{padding}': it pools whole regions, "
                'padding included'
            )
        self.num_heads = num_heads
        self.partition_factor = partition_factor
        self.topk = topk
        self.padding = padding
        self.backend = backend
        self.scale = qk_dim**-0.5 if scale is None else scale
        self.routing = routing
        self.widths = qk_dim, qk_dim, dim
        self.qkv = nn.Linear(dim, sum(self.widths))
        self.lce = None if lce_kernel is None else build_lce(dim, lce_kernel)
        self.proj = nn.Linear(dim, dim) if output_projection else nn.Identity()
        self.pool = None if pooling is None else build_region_pooling(qk_dim, dim, pooling)
        self.router = _Router(qk_dim, qk_dim) if parametric_routing else None

    @property
    def input_projection(self) -> nn.Linear:
        return self.qkv

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries, keys and values (B, H, W, C) give before the output projection."""
        pads = self._pads()
        _, arguments = self.attention_arguments(q, k, v, pads)
        out = routed_attention(**arguments, backend=self.backend)
        if self.lce is None:
            return out
        return add_depthwise_conv(out, self.lce, v, pads[-1], self.partition_factor)

    def attention_arguments(
        self, q: Tensor, k: Tensor, v: Tensor, pads: Pads | None = None
    ) -> tuple[Routing, dict]:
        """Where regions route to, and what :func:`routed_attention` gets but for its backend.

        Args:
            q, k, v (Tensor): Queries, keys and values, (B, H, W, C), as :meth:`mix` takes them.
            pads (tuple, optional): Those of padding tokens, (C, ) each, where they are known:
                one split of the bias costs three launches less in the backward pass than two.
        """
        pad_query, *pads = pads or self._pads()
        routing = route(
            *(q, k, self.topk, self.partition_factor, pad_query, pads[0]),
            embed=self.router,
            differentiable=self.routing != 'hard',
        )
        if self.pool is not None:
            padded = (
                pad_to_regions(x, self.partition_factor, pad)
                for x, pad in zip((k, v), pads, strict=True)
            )
            k, v = self.pool(*padded, self.partition_factor)
            pads = None, None  # their regions are whole
        arguments = dict(
            q=q,
            k=k,
            v=v,
            indices=routing.indices,
            partition_factor=self.partition_factor,
            num_heads=self.num_heads,
            scale=self.scale,
            pad_key=pads[0],
            pad_value=pads[1],
            routing_weights=self._routing_weights(routing),
        )
        return routing, arguments

    def _routing_weights(self, routing: Routing) -> Tensor | None:
        if self.routing == 'hard':
            return None
        chosen = routing.affinity.gather(-1, routing.indices) * self.scale
        weights = torch.softmax(chosen, dim=-1)
        return weights if self.routing == 'soft' else 1 + (weights - weights.detach())

    def _pads(self) -> Pads:
        """Query, key and value of a padding token, (C, ) each, where padding takes part."""
        is_official = self.padding == 'official'
        return self.qkv.bias.split(self.widths) if is_official else (None, None, None)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for official, ours in OFFICIAL_NAMES.items():
            for kind in ('weight', 'bias'):
                if (name := f'{prefix}{official}.{kind}') in state_dict:
                    state_dict[f'{prefix}{ours}.{kind}'] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Router(nn.Linear):
    """Linear in the dtype of the means of regions, which is float32 or wider."""

    def forward(self, means: Tensor) -> Tensor:
        return F.linear(means, self.weight.to(means.dtype), self.bias.to(means.dtype))


class ChannelsFirstRoutingAttention(BiLevelRoutingAttention):
    """The same on maps (B, C, H, W), as convolutional models have them."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        return to_channels_first(super().forward(to_channels_last(x)))
