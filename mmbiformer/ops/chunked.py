"""Routed attention in PyTorch, a few regions at a time: the fast backend of CPUs, and of any GPU.

The regions' keys and values are gathered, multiplied and dropped while they are in cache, so that
the k-fold copy never reaches memory. Nothing but the inputs is kept for the backward pass, which
gathers again and recomputes the softmax. Results repeat bitwise on CPUs; on CUDA the gradients of
keys and values are added up atomically, but under ``torch.use_deterministic_algorithms(True)``.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .head_major import Grid, from_rows, padding_bias, sum_padding, to_rows
from .inputs import Inputs

# Gathered keys and values and their logits of one chunk. On a CPU what fits a core's share of the
# caches; on a GPU enough work for every launch. docs/performance.md has the measurements.
CPU_BYTES_PER_THREAD = 2 << 20
GPU_BYTES = 256 << 20


class _Chunks:
    """Gathered keys, values and attention weights, chunk by chunk, in buffers that are reused.

    Args:
        grid (Grid): The map's regions.
    """

    def __init__(self, inputs: Inputs, grid: Grid) -> None:
        _, k, v, indices, pad_key, pad_value, _, num_heads, _ = inputs
        self.key = to_rows(k, grid, num_heads, grid.num_key_rows, pad_key).flatten(0, 1)
        self.value = to_rows(v, grid, num_heads, grid.num_key_rows, pad_value).flatten(0, 1)
        self.routed = grid.routed_rows(indices, num_heads)
        self.bias = padding_bias(grid, k) if pad_key is None and grid.is_padded else None
        self.tokens, self.dim = self.key.shape[1:]
        self.num_keys = indices.shape[-1] * self.tokens
        size = self.num_keys * (2 * self.dim + self.tokens) * k.element_size()
        is_cpu = k.device.type == 'cpu'
        budget = CPU_BYTES_PER_THREAD * torch.get_num_threads() if is_cpu else GPU_BYTES
        self.length = max(1, min(budget // size, len(self.routed)))
        self.gathered = self.empty(self.num_keys, self.dim), self.empty(self.num_keys, self.dim)
        self.weights = self.empty(self.tokens, self.num_keys)

    def empty(self, *shape: int) -> Tensor:
        """Uninitialised, with room for the regions of one chunk."""
        return self.key.new_empty(self.length, *shape)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields (which of the N * M query regions, their row numbers (n * K, ))."""
        for start in range(0, len(self.routed), self.length):
            chunk = slice(start, start + self.length)
            yield chunk, self.routed[chunk].flatten()

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a chunk: (n, K * T, D) each."""
        found = []
        for source, buffer in zip((self.key, self.value), self.gathered, strict=True):
            out = buffer.view(-1, self.tokens, self.dim)[: len(rows)]
            torch.index_select(source, 0, rows, out=out)
            found.append(out.view(-1, self.num_keys, self.dim))
        return found[0], found[1]

    def attend(self, query: Tensor, key: Tensor, rows: Tensor) -> Tensor:
        """Attention weights (n, T, K * T) of scaled queries (n, T, D) and gathered keys."""
        logits = torch.bmm(query, key.transpose(1, 2), out=self.weights[: len(query)])
        if self.bias is not None:
            bias = self.bias.index_select(0, rows % len(self.bias))
            logits += bias.view(-1, 1, self.num_keys)
        return torch.softmax(logits, dim=-1, out=logits)


def _query_rows(inputs: Inputs, grid: Grid) -> Tensor:
    """Scaled queries, (N * M, T, D)."""
    rows = to_rows(inputs.q, grid, inputs.num_heads, grid.num_rows, scale=inputs.scale)
    return rows.flatten(0, 1)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The output, (B, H, W, C), and nothing for the backward pass, (0, )."""
    grid = Grid(*inputs.q.shape[:3], inputs.partition_factor)
    query = _query_rows(inputs, grid)
    _attend_in_place(query, _Chunks(inputs, grid))  # whose memory the output can have
    out = from_rows(query.unflatten(0, (inputs.num_heads, -1)), grid)
    return out, out.new_empty(0)


def _attend_in_place(query: Tensor, chunks: _Chunks) -> None:
    """Replace each chunk of queries by its output; nothing needs the queries again."""
    for chunk, rows in chunks:
        key, value = chunks.gather(rows)
        torch.bmm(chunks.attend(query[chunk], key, rows), value, out=query[chunk])


def backward(
    grad_out: Tensor, inputs: Inputs
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v, pad_key and pad_value; none for pads that are not given."""
    num_heads = inputs.num_heads
    grid = Grid(*inputs.q.shape[:3], inputs.partition_factor)
    query, chunks = _query_rows(inputs, grid), _Chunks(inputs, grid)
    grad_out = to_rows(grad_out, grid, num_heads, grid.num_rows).flatten(0, 1)
    grad_query = torch.empty_like(query)
    grad_key, grad_value = torch.zeros_like(chunks.key), torch.zeros_like(chunks.value)
    grad_weights = chunks.empty(chunks.tokens, chunks.num_keys)
    grad_rows = chunks.empty(chunks.num_keys, chunks.dim)
    for chunk, rows in chunks:
        (key, value), grad = chunks.gather(rows), grad_out[chunk]
        weights = chunks.attend(query[chunk], key, rows)
        grad_logits, grad_row = grad_weights[: len(grad)], grad_rows[: len(grad)]
        torch.bmm(weights.transpose(1, 2), grad, out=grad_row)
        grad_value.index_add_(0, rows, grad_row.view(-1, *grad_value.shape[1:]))
        torch.bmm(grad, value.transpose(1, 2), out=grad_logits)
        torch.ops.aten._softmax_backward_data.out(
            grad_logits, weights, -1, weights.dtype, grad_input=grad_logits
        )
        torch.bmm(grad_logits, key, out=grad_query[chunk])
        torch.bmm(grad_logits.transpose(1, 2), query[chunk], out=grad_row)
        grad_key.index_add_(0, rows, grad_row.view(-1, *grad_key.shape[1:]))

    grad_query, grad_key, grad_value = (
        x.unflatten(0, (num_heads, -1)) for x in (grad_query, grad_key, grad_value)
    )
    grad_pads = None, None
    if inputs.pad_key is not None:
        grad_pads = tuple(
            sum_padding(rows, grid).to(inputs.k.dtype) for rows in (grad_key, grad_value)
        )
    grads = (
        from_rows(grad_query, grid, inputs.scale),
        from_rows(grad_key, grid),
        from_rows(grad_value, grid),
    )
    return *grads, *grad_pads
