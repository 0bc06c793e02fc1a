"""What routed attention attends to, captured while a model runs."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.ops.any_size import from_regions, pad_to_regions
from mmbiformer.ops.regions import Partition, real_tokens, to_regions


class TokenAttention(NamedTuple):
    """What one query token attends to; all its weights sum to 1 for each head.

    Attributes:
        weights (Tensor): Of each token of the map of keys, float64 (N, H, W), 0 where the token's
            region is not among those that are routed to.
        padding (Tensor): Of padding tokens, float64 (N, ).
    """

    weights: Tensor
    padding: Tensor


@dataclass
class RoutedMap:
    """One call of a routed attention: a batch of maps, where each region routes to, and why.

    All tensors are on the CPU, wherever the model is.

    Attributes:
        name (str): The module's, within the model.
        size (tuple[int, int]): Height and width of the map, in tokens.
        partition_factor (int): S.
        num_heads (int): N.
        indices (Tensor): Regions that each region routes to, int64 (B, R, K); the one whose keys
            answer best comes first.
        affinity (Tensor): How well each region's mean key answers to each region's mean query,
            (B, R, R), queries first, without the softmax scale.
        query (Tensor): (B, H, W, C).
        key (Tensor): (B, H, W, C), of a smaller map where keys are pooled.
        scale (float): Of the softmax.
        pad_key (Tensor, optional): The key of a padding token, (C, ); None where padding takes no
            part.
        routing_weights (Tensor, optional): By which keys are multiplied, (B, R, K), as indices.
    """

    name: str
    size: tuple[int, int]
    partition_factor: int
    num_heads: int
    indices: Tensor
    affinity: Tensor
    query: Tensor
    key: Tensor
    scale: float
    pad_key: Tensor | None
    routing_weights: Tensor | None

    @property
    def partition(self) -> Partition:
        """How the map is cut into regions."""
        return Partition(len(self.indices), *self.size, self.partition_factor)

    def region_of(self, row: int, column: int) -> int:
        """The number of the region that a token is in, row by row.

        Raises:
            ValueError: If the map has no such token.
        """
        height, width = self.size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f'token ({row}, {column}) is not in the map of {height} x {width} tokens of '
                f'{self.name}'
            )
        h, w = self.partition.region
        return row // h * self.partition_factor + column // w

    def attention(self, row: int, column: int, image: int = 0) -> TokenAttention:
        """What the token at a row and column of the map attends to, computed in float64.

        Args:
            row, column (int): Of the token, from 0.
            image (int): Its number in the batch.

        Raises:
            ValueError: If the map has no such token.
        """
        region, s = self.region_of(row, column), self.partition_factor
        chosen, pad = self.indices[image, region], self.pad_key
        key = self.key[image : image + 1]
        height, width = key.shape[1:3]
        key = to_regions(pad_to_regions(key, s, pad), s)[0, chosen].double()
        key = key.unflatten(-1, (self.num_heads, -1))
        if self.routing_weights is not None:
            key = key * self.routing_weights[image, region].double().view(-1, 1, 1, 1)
        query = self.query[image, row, column].double().unflatten(-1, (self.num_heads, -1))
        logits = self.scale * torch.einsum('nd,ktnd->nkt', query, key)
        real = real_tokens(height, width, s, key.device)
        if pad is None:
            logits = logits.masked_fill(~real[chosen], float('-inf'))
        shares = torch.softmax(logits.flatten(1), dim=-1).view_as(logits)
        regions = shares.new_zeros(s * s, real.shape[1], self.num_heads)
        regions[chosen] = shares.permute(1, 2, 0)
        shown = from_regions(regions.unsqueeze(0), height, width, s)[0].permute(2, 0, 1)
        return TokenAttention(shown, (shares * ~real[chosen]).sum((1, 2)))


def routed_modules(model: nn.Module) -> dict[str, BiLevelRoutingAttention]:
    """All routed attentions of a model by their names, in the order of its modules."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BiLevelRoutingAttention)
    }


@contextmanager
def capture_routing(
    model: nn.Module, names: Sequence[str] | None = None
) -> Iterator[list[RoutedMap]]:
    """Within the block, keep what routed attentions of a model route, call by call.

    What the model computes stays the same to the bit. Of each call queries and keys are kept, and
    of modules that are not named nothing.

    Args:
        model (nn.Module): Any model, as far as it is not compiled.
        names (Sequence[str], optional): Of :func:`routed_modules`; all by default.

    Yields:
        list[RoutedMap]: Grows with each call, in their order.

    Raises:
        ValueError: If the model has no routed attention, or none of a name, or is compiled.
    """
    modules = routed_modules(model)
    if not modules:
        raise ValueError(f'{type(model).__name__} has no routed attention to look into')
    unknown = [name for name in names or () if name not in modules]
    if unknown:
        known = list(modules)
        raise ValueError(
            f"no routed attention '{unknown[0]}' among the {len(known)} of the model, from "
            f"'{known[0]}' to '{known[-1]}'"
        )
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise ValueError(
            'routing cannot be captured in a compiled model: build it without compile'
        )
    captured: list[RoutedMap] = []
    with ExitStack() as stack:
        for name in modules if names is None else names:
            stack.enter_context(_captured(modules[name], name, captured))
        yield captured


@contextmanager
def _captured(
    module: BiLevelRoutingAttention, name: str, captured: list[RoutedMap]
) -> Iterator[None]:
    """Have a module's calls captured. A hook would not see queries, nor what a block fuses."""
    former, mix = vars(module).get('mix'), module.mix

    @functools.wraps(mix)
    def captured_mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            captured.append(_routed_map(module, name, q, k, v))
        return mix(q, k, v)

    module.mix = captured_mix
    try:
        yield
    finally:
        del module.mix
        if former is not None:
            module.mix = former


def _routed_map(
    module: BiLevelRoutingAttention, name: str, q: Tensor, k: Tensor, v: Tensor
) -> RoutedMap:
    routing, arguments = module.attention_arguments(q, k, v)
    affinity = routing.affinity.gather(-1, routing.indices)
    order = affinity.argsort(dim=-1, descending=True, stable=True)
    weights = arguments['routing_weights']
    return RoutedMap(
        name=name,
        size=tuple(q.shape[1:3]),
        partition_factor=module.partition_factor,
        num_heads=module.num_heads,
        indices=_kept(routing.indices.gather(-1, order)),
        affinity=_kept(routing.affinity),
        query=_kept(q),
        key=_kept(arguments['k']),
        scale=arguments['scale'],
        pad_key=_kept(arguments['pad_key']),
        routing_weights=None if weights is None else _kept(weights.gather(-1, order)),
    )


def _kept(x: Tensor | None) -> Tensor | None:
    """A copy, as some paths write later values to the same memory; not where memory is scarce."""
    return None if x is None else x.to('cpu', copy=True)
