"""Routed attention in PyTorch, a few regions at a time: the fast backend of CPUs, and of any GPU.

A chunk is a few query regions. Their keys and values are gathered, multiplied and dropped while
they are in cache, so that the K-fold copy never reaches memory. Nothing but the inputs is kept for
the backward pass, which gathers again and recomputes the softmax. Results repeat bitwise on CPUs;
on CUDA the gradients of keys and values are added up atomically, except under
``torch.use_deterministic_algorithms(True)``.

Shape letters as in ``head_major.py``; n is the number of regions in a chunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .head_major import (
    from_head_major,
    num_key_regions,
    num_query_regions,
    padding_bias,
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
        k, partition, num_heads = inputs.k, inputs.partition, inputs.num_heads
        num_regions = num_key_regions(partition)
        self.key, self.value = (
            to_head_major(x, partition, num_heads, num_regions, pad).flatten(0, 1)
            for x, pad in ((k, inputs.pad_key), (inputs.v, inputs.pad_value))
        )  # (N * (M + P), T, D) each
        self.routed = routed_regions(inputs.indices, partition, num_heads)  # (N * M, K)
        self.bias = padding_bias(partition, k) if inputs.masks_padding else None
        self.tokens, self.dim = self.key.shape[1:]
        self.num_keys = self.routed.shape[1] * self.tokens
        bytes_per_region = self.num_keys * (2 * self.dim + self.tokens) * k.element_size()
        is_cpu = k.device.type == 'cpu'
        budget = CPU_BYTES_PER_THREAD * torch.get_num_threads() if is_cpu else GPU_BYTES
        self.length = max(1, min(budget // bytes_per_region, len(self.routed)))
        self.buffers = [self.empty(self.num_keys, self.dim) for _ in range(2)]  # keys, values
        self.weights = self.empty(self.tokens, self.num_keys)

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
            out = buffer.view(-1, self.tokens, self.dim)[: len(routed)]
            torch.index_select(source, 0, routed, out=out)
            yield out.view(-1, self.num_keys, self.dim)

    def attend(self, query: Tensor, key: Tensor, routed: Tensor) -> Tensor:
        """Attention weights (n, T, K * T) of scaled queries (n, T, D) and gathered keys."""
        logits = torch.bmm(query, key.transpose(1, 2), out=self.weights[: len(query)])
        if self.bias is not None:
            bias = self.bias.index_select(0, routed % len(self.bias))
            logits += bias.view(-1, 1, self.num_keys)
        return torch.softmax(logits, dim=-1, out=logits)


def _query_regions(x: Tensor, inputs: Inputs, scale: float = 1) -> Tensor:
    """A map of queries, or of gradients of the output, times ``scale``: (N * M, T, D)."""
    partition = inputs.partition
    num_regions = num_query_regions(partition)
    return to_head_major(x, partition, inputs.num_heads, num_regions, scale=scale).flatten(0, 1)


def forward(inputs: Inputs) -> tuple[Tensor, None]:
    """The output, (B, H, W, C), and nothing else for the backward pass."""
    query = _query_regions(inputs.q, inputs, inputs.scale)
    _attend_in_place(query, _Chunks(inputs))  # the output takes the memory of the queries
    return from_head_major(query.unflatten(0, (inputs.num_heads, -1)), inputs.partition), None


def _attend_in_place(query: Tensor, chunks: _Chunks) -> None:
    """Replace each chunk of queries by its output; nothing needs the queries again."""
    for chunk, routed in chunks:
        key, value = chunks.gather(routed)
        torch.bmm(chunks.attend(query[chunk], key, routed), value, out=query[chunk])


def backward(
    grad_out: Tensor, inputs: Inputs, out: None, kept: None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v, pad_key and pad_value; None for pads that are not given."""
    query, chunks = _query_regions(inputs.q, inputs, inputs.scale), _Chunks(inputs)
    grad_out = _query_regions(grad_out, inputs)
    grad_query = torch.empty_like(query)
    grad_key, grad_value = torch.zeros_like(chunks.key), torch.zeros_like(chunks.value)
    logits_buffer = chunks.empty(chunks.tokens, chunks.num_keys)
    key_buffer = chunks.empty(chunks.num_keys, chunks.dim)
    for chunk, routed in chunks:
        (key, value), grad = chunks.gather(routed), grad_out[chunk]
        weights = chunks.attend(query[chunk], key, routed)
        grad_logits, grad_gathered = logits_buffer[: len(grad)], key_buffer[: len(grad)]
        torch.bmm(weights.transpose(1, 2), grad, out=grad_gathered)
        grad_value.index_add_(0, routed, grad_gathered.view(-1, *grad_value.shape[1:]))
        torch.bmm(grad, value.transpose(1, 2), out=grad_logits)
        torch.ops.aten._softmax_backward_data.out(
            grad_logits, weights, -1, weights.dtype, grad_input=grad_logits
        )
        torch.bmm(grad_logits, key, out=grad_query[chunk])
        torch.bmm(grad_logits.transpose(1, 2), query[chunk], out=grad_gathered)
        grad_key.index_add_(0, routed, grad_gathered.view(-1, *grad_key.shape[1:]))

    partition = inputs.partition
    grad_query, grad_key, grad_value = (
        x.unflatten(0, (inputs.num_heads, -1)) for x in (grad_query, grad_key, grad_value)
    )
    grad_pads = None, None
    if inputs.pad_key is not None:
        grad_pads = sum_padding(grad_key, partition), sum_padding(grad_value, partition)
    return (
        from_head_major(grad_query, partition, inputs.scale),
        from_head_major(grad_key, partition),
        from_head_major(grad_value, partition),
        *grad_pads,
    )
