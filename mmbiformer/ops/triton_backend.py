"""Routed attention fused on the GPU: what is launched, on which memory, in tiles of which size.

The kernels are in ``triton_kernels.py``, which is imported when first needed: this module, like
all of ``mmbiformer.ops``, imports with torch alone. Letters as there.
"""

import re
from functools import cache
from importlib import import_module, metadata
from typing import NamedTuple

import torch
from torch import Tensor

from .inputs import Inputs

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HEAD_DIMS = (16, 32, 64, 128)
OLDEST_TRITON = (3, 6)  # which torch 2.10 brings; no other torch can be given it
OLDEST_TORCH = (2, 10)
MAX_HEADS = 65_535  # of all images of a batch together: CUDA's limit of a launch grid's z
# A list of more than this times K regions, where K is the mean length, is cut into pieces for
# several programs: one would still be at it when all others are done. 2 would double the memory.
PIECE_PER_TOPK = 4


class Tiles(NamedTuple):
    """How many queries and keys a program holds at a time, and how many warps work on them."""

    queries: int
    keys: int
    warps: int


# Up to how many tokens per region: tiles of the forward, the backward for queries, and for keys.
# Chosen from registers (no spills, several programs per multiprocessor) and from how much of the
# last tile stays empty. Products of 64 rows by 4 or more warps are done by Hopper's wgmma.
TILES_16_BIT = {
    16: (Tiles(16, 32, 1), Tiles(16, 32, 2), Tiles(32, 16, 1)),
    128: (Tiles(32, 32, 2), Tiles(32, 32, 2), Tiles(32, 32, 2)),
    float('inf'): (Tiles(64, 64, 4), Tiles(64, 32, 4), Tiles(32, 64, 4)),
}
# For the last row where the compiler gets wgmma wrong: products of 32 rows.
TILES_WITHOUT_WGMMA = Tiles(32, 64, 2), Tiles(32, 32, 2), Tiles(64, 32, 2)
# The forward's mask for padding takes a register for each score of a thread.
MAX_MASKED_SCORES = 2048
TILES_32_BIT = {
    16: (Tiles(16, 32, 2), Tiles(16, 16, 2), Tiles(16, 16, 2)),
    float('inf'): (Tiles(32, 32, 4), Tiles(32, 16, 4), Tiles(16, 32, 4)),
}


def tiles_by_tokens(dtype: torch.dtype) -> dict[float, tuple[Tiles, ...]]:
    """The table for a dtype on the current GPU. It is for D = 32."""
    from .triton_compiler import wgmma_is_sound

    if dtype == torch.float32:
        return TILES_32_BIT
    if wgmma_is_sound():
        return TILES_16_BIT
    return {**TILES_16_BIT, float('inf'): TILES_WITHOUT_WGMMA}


def choose_tiles(inputs: Inputs) -> list[Tiles]:
    """Tiles of the three kernels on the current GPU, by dtype, T and D."""
    table, tokens = tiles_by_tokens(inputs.q.dtype), inputs.partition.tokens
    chosen = next(tiles for limit, tiles in table.items() if tokens <= limit)
    factor = max(1, inputs.head_dim // 32)
    forward, *backward = (x._replace(warps=min(8, x.warps * factor)) for x in chosen)
    if inputs.masks_padding:
        keys = min(forward.keys, MAX_MASKED_SCORES // forward.queries)
        forward = forward._replace(keys=keys)
    return [forward, *backward]


@cache
def installation_problem() -> str | None:
    """What of the installation keeps the kernels from running; looked up once."""
    if torch.version.hip:
        return 'it is not tested on AMD GPUs'
    again = f'install torch {torch.__version__} again, which brings its own'
    try:
        # Not by its distribution, which has several names.
        installed = import_module('triton').__version__
    except Exception as error:  # anything, where files of several versions are mixed
        remedy = again if torch.version.cuda else 'install torch with CUDA, which brings it'
        return f'triton cannot be imported ({error}): {remedy}'
    if _release(installed) < OLDEST_TRITON:
        newer = 'install torch 2.10 or newer, which brings its own'
        is_new = _release(torch.__version__) >= OLDEST_TORCH
        return f'triton {installed} is too old: {again if is_new else newer}'
    return None


def _release(version: str) -> tuple[int, ...]:
    major, minor = version.split('.')[:2]
    return int(major), int(minor)


def misfit() -> str | None:
    """That Triton is another than the one that torch brings, if it is.

    The kernels may well run with it: a reason to name where they do not, and not to refuse them.
    """
    installed = import_module('triton').__version__
    for requirement in metadata.requires('torch') or ():
        brought = re.match(r'triton\s*==\s*([\w.+]+)', requirement)
        if brought and brought[1] != installed:
            return (
                f'triton {installed} is not the {brought[1]} that torch {torch.__version__} '
                'brings: install that torch again'
            )
    return None


def problem(inputs: Inputs) -> str | None:
    """Why this backend cannot run on inputs, in a few words; None where it can."""
    q = inputs.q
    if installation_problem():
        return installation_problem()
    if q.dtype not in DTYPES:
        return f'dtype {q.dtype} is not float32, float16 or bfloat16'
    if inputs.k.shape != q.shape or inputs.v.shape != q.shape:
        return 'keys or values are of another size or width than queries'
    if inputs.routing_weights is not None:
        return 'it knows no routing weights'
    if inputs.head_dim not in HEAD_DIMS:
        return f'head dim {inputs.head_dim} is not 16, 32, 64 or 128'
    if len(q) * inputs.num_heads > MAX_HEADS:
        return f'a batch of {len(q)} times {inputs.num_heads} heads is more than {MAX_HEADS:,}'
    from .triton_regions import INTERPRETED

    if INTERPRETED.value:
        return None
    if not q.is_cuda:
        return f'q is on {q.device}: triton needs a CUDA GPU (or TRITON_INTERPRET=1, for tests)'
    major, minor = torch.cuda.get_device_capability(q.device)
    if major < 8:
        return f'the compute capability of the GPU, {major}.{minor}, is below 8.0'
    return None


def kept_shape(inputs: Inputs) -> tuple[int, ...]:
    """Of what :func:`forward` keeps for :func:`backward`: (B, H, W, N)."""
    return *inputs.q.shape[:3], inputs.num_heads


def _launch_grid(inputs: Inputs, items: int, block: int) -> tuple[int, int, int]:
    partition = inputs.partition
    return items, -(-partition.tokens // block), partition.batch * inputs.num_heads


def _map_arguments(inputs: Inputs) -> dict:
    return dict(
        height=inputs.q.shape[1],
        width=inputs.q.shape[2],
        num_heads=inputs.num_heads,
        S=inputs.partition_factor,
        D=inputs.head_dim,
    )


def _attention_arguments(inputs: Inputs, tiles: Tiles) -> dict:
    return dict(
        topk=inputs.indices.shape[2],
        scale=inputs.scale,
        BLOCK_Q=tiles.queries,
        BLOCK_K=tiles.keys,
        num_warps=tiles.warps,
        **_map_arguments(inputs),
    )


def _pads_in_use(inputs: Inputs) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The pads as kernels take them; None where padding takes no part, or there is none."""
    if inputs.pad_key is None or not inputs.partition.is_padded:
        return None, None
    return inputs.pad_key.contiguous(), inputs.pad_value.contiguous()


def _map(x: Tensor) -> tuple[Tensor, int, int, int]:
    """A map as kernels take it: read in place, unless its channels are apart in memory."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return x, *x.stride()[:3]


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Routed attention. Parts q, k and v of one packed map are read in place.

    Returns:
        tuple: The output, (B, H, W, C), contiguous; and for :func:`backward` the logarithm to base
        2 of the sum of the exponentials of every query's scores, (B, H, W, N), float32.
    """
    from .triton_kernels import forward_kernel

    q, indices = inputs.q, inputs.indices
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = q.new_empty(kept_shape(inputs), dtype=torch.float32)
    with torch.cuda.device_of(q):
        tiles, _, _ = choose_tiles(inputs)
        forward_kernel[_launch_grid(inputs, indices.shape[1], tiles.queries)](
            *map(_map, (q, inputs.k, inputs.v, out)),
            indices.contiguous(),
            *_pads_in_use(inputs),
            lse,
            MASKED=inputs.masks_padding,
            **_attention_arguments(inputs, tiles),
        )
    return out, lse


def backward(
    grad_out: Tensor, inputs: Inputs, out: Tensor, lse: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v (contiguous), the pads, None where there are none, and no weights.

    ``grad_out`` may have any strides; ``out`` and ``lse`` are what :func:`forward` returned.
    """
    with torch.cuda.device_of(inputs.q):
        grad_q, stats, norm, grad_pads = _backward_queries(grad_out, inputs, out, lse)
        grad_k, grad_v = _backward_keys(grad_out, inputs, stats, norm)
    return grad_q, grad_k, grad_v, *grad_pads, None


def _backward_queries(grad_out: Tensor, inputs: Inputs, out: Tensor, lse: Tensor):
    """Gradient of q, what the other kernel needs of queries, and the gradients of the pads."""
    from .triton_kernels import backward_query_kernel

    q, indices = inputs.q, inputs.indices
    _, tiles, _ = choose_tiles(inputs)
    grid = _launch_grid(inputs, indices.shape[1], tiles.queries)
    grad_q = torch.empty_like(out)
    stats = lse.new_empty(*lse.shape, 2)
    norm = torch.empty_like(lse) if q.dtype == torch.float32 else None
    pads, parts = _pads_in_use(inputs), None
    if pads[0] is not None:  # zeros, as programs that meet no padded key do not write
        parts = lse.new_zeros(2, len(q), *grid[:2], q.shape[-1]).unbind()
    backward_query_kernel[grid](
        *map(_map, (q, inputs.k, inputs.v, out, grad_out, grad_q)),
        indices.contiguous(),
        *pads,
        parts,
        lse,
        stats,
        norm,
        MASKED=inputs.masks_padding,
        **_attention_arguments(inputs, tiles),
    )
    if parts is not None:
        grad_pads = [x.sum((0, 1, 2)).to(q.dtype) for x in parts]
    else:
        given = inputs.pad_key, inputs.pad_value
        grad_pads = [None if pad is None else torch.zeros_like(pad) for pad in given]
    return grad_q, stats, norm, grad_pads


def _backward_keys(
    grad_out: Tensor, inputs: Inputs, stats: Tensor, norm: Tensor | None
) -> list[Tensor]:
    """Gradients of k and v."""
    from .triton_kernels import add_pieces_kernel, backward_key_kernel

    q, indices = inputs.q, inputs.indices
    _, _, tiles = choose_tiles(inputs)
    batch, num_regions, topk = indices.shape
    lists, starts = _invert(indices)
    num_listed = num_regions * topk
    piece_size = PIECE_PER_TOPK * topk
    num_partial = 2 * ((num_listed - 1) // piece_size)
    grads = [q.new_empty(q.shape) for _ in range(2)]
    shape = 2, batch, num_partial, inputs.partition.tokens, q.shape[-1]
    partials = stats.new_empty(shape).unbind()
    backward_key_kernel[_launch_grid(inputs, num_listed // piece_size + num_regions, tiles.keys)](
        *map(_map, (q, inputs.k, inputs.v, grad_out, *grads, *partials)),
        lists,
        starts,
        stats,
        norm,
        piece_size=piece_size,
        REGIONS=1 << (num_regions - 1).bit_length(),
        **_attention_arguments(inputs, tiles),
    )
    if num_partial:
        add_pieces_kernel[_launch_grid(inputs, num_regions, tiles.keys)](
            *map(_map, (*grads, *partials)),
            starts,
            piece_size=piece_size,
            BLOCK_K=tiles.keys,
            num_warps=2 * tiles.warps,  # with fewer, some compilers spill in its loop
            **_map_arguments(inputs),
        )
    return grads


def _invert(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The regions that route to each region by ``indices`` (B, R, K), with no wait for the device.

    Returns:
        tuple: The regions that route to region 0, then those that do to region 1 and so on,
        (B, R * K); and where each of these lists starts and the last one ends, (B, R + 1), int32.
    """
    batch, num_regions, topk = indices.shape
    listed, order = indices.flatten(1).sort(stable=True)
    regions = torch.arange(num_regions + 1, device=indices.device).repeat(batch, 1)
    return order // topk, torch.searchsorted(listed, regions, out_int32=True)
