"""Routed attention in PyTorch, a few regions at a time: the fast backend of CPUs, and of any GPU.

A chunk is a few query regions. Their keys and values are gathered, multiplied and dropped while
they are in cache, so that the K-fold copy never reaches memory. Nothing but the inputs is kept for
the backward pass, which gathers again and recomputes the softmax. Results repeat bitwise on CPUs;
on CUDA the gradients of keys and values are added up atomically, except under
``torch.use_deterministic_algorithms(True)``.

Shape letters as in ``head_major.py``; n is the number of regions in a chunk.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from .head_major import (
    from_head_major,
    num_key_regions,
    num_query_regions,
    padding_bias,
    real_regions,
    routed_regions,
    sum_padding,
    to_head_major,
)
from .inputs import Inputs

# These limits bound a chunk's gathered keys, values and logits: on a CPU by a core's share of the
# caches, on a GPU by what keeps every launch busy. docs/performance.md has the measurements.
CPU_BYTES_PER_THREAD = 2 << 20
GPU_BYTES = 256 << 20


class _Chunks:
    """Gathered keys, values and attention weights, chunk by chunk, in buffers that are reused."""

    def __init__(self, inputs: Inputs) -> None:
        k, partition, num_heads = inputs.k, inputs.key_partition, inputs.num_heads
        num_regions = num_key_regions(partition)
        self.key, self.value = (
            to_head_major(x, partition, num_heads, num_regions, pad).flatten(0, 1)
            for x, pad in ((k, inputs.pad_key), (inputs.v, inputs.pad_value))
        )  # (N * (M + P), T, D) each
        self.routed = routed_regions(inputs.indices, inputs.partition, partition, num_heads)
        self.routing_weights = None  # else (N * M, K), as ``routed``
        if inputs.routing_weights is not None:
            weights = real_regions(inputs.routing_weights, inputs.partition)
            self.routing_weights = weights.flatten(0, 2).repeat(num_heads, 1)
        self.bias = padding_bias(partition, k) if inputs.masks_padding else None
        self.num_queries, self.num_keys = inputs.partition.tokens, partition.tokens
        self.num_gathered = self.routed.shape[1] * self.num_keys
        widths = self.key.shape[2] + self.value.shape[2]
        bytes_per_region = self.num_gathered * (widths + self.num_queries) * k.element_size()
        is_cpu = k.device.type == 'cpu'
        budget = CPU_BYTES_PER_THREAD * torch.get_num_threads() if is_cpu else GPU_BYTES
        self.length = max(1, min(budget // bytes_per_region, len(self.routed)))
        sources = self.key, self.value
        self.buffers = [self.empty(self.num_gathered, x.shape[2]) for x in sources]
        self.weights = self.empty(self.num_queries, self.num_gathered)

    def empty(self, *shape: int) -> Tensor:
        """Uninitialised memory with room for the regions of one chunk."""
        return self.key.new_empty(self.length, *shape)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields (which of the N * M query regions, the key regions they route to, (n * K, ))."""
        for start in range(0, len(self.routed), self.length):
            chunk = slice(start, start + self.length)
            yield chunk, self.routed[chunk].flatten()

    def gather(self, routed: Tensor) -> Iterator[Tensor]:
        """Keys, then values of a chunk: (n, K * T, D) each."""
        for source, buffer in zip((self.key, self.value), self.buffers, strict=True):
            out = buffer.view(-1, *source.shape[1:])[: len(routed)]
            torch.index_select(source, 0, routed, out=out)
            yield out.view(-1, *buffer.shape[1:])

    def attend(self, query: Tensor, key: Tensor, chunk: slice, routed: Tensor) -> Tensor:
        """Attention weights (n, T, K * T) of scaled queries (n, T, D) and gathered keys."""
        logits = torch.bmm(query, key.transpose(1, 2), out=self.weights[: len(query)])
        self.weigh(logits, chunk)
        if self.bias is not None:
            bias = self.bias.index_select(0, routed % len(self.bias))
            logits += bias.view(-1, 1, self.num_gathered)
        return torch.softmax(logits, dim=-1, out=logits)

    def weigh(self, x: Tensor, chunk: slice) -> None:
        """Multiply what each query has of each key, (n, T, K * T), by the routing weights.

        To multiply the keys or the values instead would come to the same.
        """
        if self.routing_weights is not None:
            x.unflatten(2, (-1, self.num_keys)).mul_(self.routing_weights[chunk, None, :, None])


class _GatheredGrads:
    """Sums gradients of what chunks gathered, keys or values, and of their routing weights."""

    def __init__(
        self, chunks: _Chunks, source: Tensor, buffer: Tensor, grad_weights: Tensor | None
    ) -> None:
        self.chunks, self.buffer, self.grad_weights = chunks, buffer, grad_weights
        self.total = torch.zeros_like(source)

    def add(
        self, chunk: slice, routed: Tensor, weights: Tensor, right: Tensor, gathered: Tensor
    ) -> None:
        """Add ``weights`` (n, T, K * T), transposed, times ``right`` (n, T, D)."""
        shape = len(right), self.chunks.num_gathered, right.shape[2]
        grad = self.buffer[: prod(shape)].view(shape)
        torch.bmm(weights.transpose(1, 2), right, out=grad)
        if self.grad_weights is not None:
            per_region = len(right), -1, self.chunks.num_keys * right.shape[2]
            grad_per_region = grad.view(per_region)
            self.grad_weights[chunk] += (grad_per_region * gathered.view(per_region)).sum(-1)
            grad_per_region *= self.chunks.routing_weights[chunk].unsqueeze(-1)
        self.total.index_add_(0, routed, grad.view(-1, *self.total.shape[1:]))


def _query_regions(x: Tensor, inputs: Inputs, scale: float = 1) -> Tensor:
    """A map of queries, or of gradients of the output, times ``scale``: (N * M, T, D)."""
    partition = inputs.partition
    num_regions = num_query_regions(partition)
    return to_head_major(x, partition, inputs.num_heads, num_regions, scale=scale).flatten(0, 1)


def forward(inputs: Inputs) -> tuple[Tensor, None]:
    """The output, a map as wide as v, and nothing else for the backward pass."""
    query = _query_regions(inputs.q, inputs, inputs.scale)
    out = _attend(query, _Chunks(inputs))
    return from_head_major(out.unflatten(0, (inputs.num_heads, -1)), inputs.partition), None


def _attend(query: Tensor, chunks: _Chunks) -> Tensor:
    """The output, (N * M, T, D): in the memory of the queries, which nothing needs again.

    Values of another width need memory of their own.
    """
    is_as_wide = query.shape[2] == chunks.value.shape[2]
    out = query if is_as_wide else query.new_empty(*query.shape[:2], chunks.value.shape[2])
    for chunk, routed in chunks:
        key, value = chunks.gather(routed)
        weights = chunks.attend(query[chunk], key, chunk, routed)
        chunks.weigh(weights, chunk)
        torch.bmm(weights, value, out=out[chunk])
    return out


def backward(grad_out: Tensor, inputs: Inputs, out: None, kept: None) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, pad_key, pad_value and routing_weights; None for what is not given."""
    query, chunks = _query_regions(inputs.q, inputs, inputs.scale), _Chunks(inputs)
    grad_out = _query_regions(grad_out, inputs)
    grad_query, grad_weights = torch.empty_like(query), None
    if chunks.routing_weights is not None:
        grad_weights = torch.zeros_like(chunks.routing_weights)
    widest = max(x.shape[2] for x in (chunks.key, chunks.value))
    buffer = chunks.empty(chunks.num_gathered * widest).flatten()
    grad_keys = _GatheredGrads(chunks, chunks.key, buffer, grad_weights)
    grad_values = _GatheredGrads(chunks, chunks.value, buffer, grad_weights)
    logits_buffer = chunks.empty(chunks.num_queries, chunks.num_gathered)
    for chunk, routed in chunks:
        (key, value), grad = chunks.gather(routed), grad_out[chunk]
        weights = chunks.attend(query[chunk], key, chunk, routed)
        grad_values.add(chunk, routed, weights, grad, value)
        grad_logits = torch.bmm(grad, value.transpose(1, 2), out=logits_buffer[: len(grad)])
        chunks.weigh(grad_logits, chunk)
        torch.ops.aten._softmax_backward_data.out(
            grad_logits, weights, -1, weights.dtype, grad_input=grad_logits
        )
        grad_keys.add(chunk, routed, grad_logits, query[chunk], key)
        chunks.weigh(grad_logits, chunk)
        torch.bmm(grad_logits, key, out=grad_query[chunk])

    keys, queries = inputs.key_partition, inputs.partition
    grad_query, grad_key, grad_value = (
        x.unflatten(0, (inputs.num_heads, -1))
        for x in (grad_query, grad_keys.total, grad_values.total)
    )
    grad_pads = None, None
    if inputs.pad_key is not None:
        grad_pads = sum_padding(grad_key, keys), sum_padding(grad_value, keys)
    if grad_weights is not None:
        of_heads = grad_weights.unflatten(0, (inputs.num_heads, -1)).sum(0)
        grad_weights = torch.zeros_like(inputs.routing_weights)
        of_regions = real_regions(grad_weights, queries)
        of_regions.copy_(of_heads.view(of_regions.shape))
    return (
        from_head_major(grad_query, queries, inputs.scale),
        from_head_major(grad_key, keys),
        from_head_major(grad_value, keys),
        *grad_pads,
        grad_weights,
    )
