"""GPU kernels of routed attention: what one program computes. ``triton_backend.py`` launches them.

Letters: B batch, H and W height and width of the map, S partition factor, R = S * S regions,
T tokens per region, K routed regions, N heads, D head dim, C = N * D channels. A map (B, H, W, C)
comes as a tuple: the tensor and its strides of B, H and W; the stride of C is 1.

A program owns one tile of a region's real tokens, which are a rectangle on the map, and walks a
flat list of regions, tile after tile, so that only the list's last tile is partly empty. Padding
is never stored; its gradient is that of one key, times the number of padded keys.

Softmax is in base 2, sums are float32, offsets of tokens 64-bit. Nothing is atomic: every sum has
a fixed order, and results repeat bitwise.
"""

import torch
import triton
import triton.language as tl

from .triton_regions import (
    dot,
    first_tokens,
    load_tokens,
    locate,
    next_tokens,
    num_padded_keys,
    own_tile,
    store_tokens,
)

LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)  # -inf would make -inf - -inf = nan
# Compiled once for all sizes of picture, whatever divides them.
SIZES = ['height', 'width', 'topk', 'num_heads', 'chunk_size']


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    q_map,
    k_map,
    v_map,
    out_map,
    routes_ptr,  # (B, R, K)
    pad_key_ptr,  # (C, ), as the next; None: padding takes no part
    pad_value_ptr,
    lse_ptr,  # (B, H, W, N): log2 of the sum of exp(score)
    height,
    width,
    topk,
    num_heads,
    scale,
    S: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Output and log-sum-exp of one tile of queries. Grid (R, tiles of T, B * N)."""
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    _token, y, x, is_query, is_any = own_tile(region, height, width, S, BLOCK_Q)
    if not is_any:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = load_tokens(q_map, image, head, y, x, is_query, D)
    best = tl.full([BLOCK_Q], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    out = tl.zeros([BLOCK_Q, D], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_key = locate(routes_ptr, topk, slot, row, column, height, width, S)
        k = load_tokens(k_map, image, head, ky, kx, is_key, D, pad_key_ptr, listed)
        v = load_tokens(v_map, image, head, ky, kx, is_key, D, pad_value_ptr, listed)
        if not MASKED:  # the same by cheaper means
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = dot(q, tl.trans(k)) * (scale * LOG2_E)
        scores = tl.where(is_key[None, :], scores, float('-inf'))
        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None] + dot(weights, v)
        best = new_best
        slot, row, column = next_tokens(slot, row, column, region_height, region_width, BLOCK_K)
    store_tokens(out_map, image, head, y, x, is_query, out / total[:, None], D)
    number = ((image * height + y) * width + x) * num_heads + head
    tl.store(lse_ptr + number, best + tl.log2(total), mask=is_query)


@triton.jit(do_not_specialize=SIZES)
def backward_query_kernel(
    q_map,
    k_map,
    v_map,
    out_map,
    grad_out_map,
    grad_q_map,
    routes_ptr,
    pad_key_ptr,
    pad_value_ptr,
    grad_pads,  # of key and value, (B, R, tiles, C) each: every program's part of the sum
    lse_ptr,
    stats_ptr,  # (B, H, W, N, 2), for the other kernel: lse, mean gradient of a query's weights
    norm_ptr,  # (B, H, W, N), in float32 alone, as what follows: 1 / sum of weights by lse
    height,
    width,
    topk,
    num_heads,
    scale,
    S: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Gradient of one tile of queries, and of the pads by way of it. Grid as in the forward.

    The gradients of a query's scores add up to zero. Their mean, subtracted from each, is known
    beforehand from the output, but as exactly as that is rounded; where one weight is nearly 1,
    all that remains of the gradient is smaller than this. So its error is summed up on the way,
    and taken off in the end. In float32 the rounding of lse is, too, and the pads' share is summed
    with the same rounding as all other keys'. In 16 bits, where that would take 70 registers more,
    the pads' scores are computed again: exact to float32, but not zero where pads have all weight.
    """
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    _token, y, x, is_query, is_any = own_tile(region, height, width, S, BLOCK_Q)
    if not is_any:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = load_tokens(q_map, image, head, y, x, is_query, D)
    grad_out = load_tokens(grad_out_map, image, head, y, x, is_query, D)
    out = load_tokens(out_map, image, head, y, x, is_query, D).to(tl.float32)
    delta = tl.sum(grad_out.to(tl.float32) * out, 1)
    number = ((image * height + y) * width + x) * num_heads + head
    lse = tl.load(lse_ptr + number, mask=is_query, other=0.0)

    grad_q = tl.zeros([BLOCK_Q, D], tl.float32)
    mean_k = tl.zeros([BLOCK_Q, D], tl.float32)
    error = tl.zeros([BLOCK_Q], tl.float32)  # of delta
    total = tl.zeros([BLOCK_Q], tl.float32)
    pad_weight = tl.zeros([BLOCK_Q], tl.float32)
    pad_grad = tl.zeros([BLOCK_Q], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_real = locate(routes_ptr, topk, slot, row, column, height, width, S)
        k = load_tokens(k_map, image, head, ky, kx, is_real, D, pad_key_ptr, listed)
        v = load_tokens(v_map, image, head, ky, kx, is_real, D, pad_value_ptr, listed)
        is_key = is_real
        if not MASKED:  # all that is listed, by cheaper means
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = dot(q, tl.trans(k)) * (scale * LOG2_E)
        weights = tl.exp2(tl.where(is_key[None, :], scores - lse[:, None], float('-inf')))
        grad_weights = dot(grad_out, tl.trans(v))
        grad_scores = weights * (grad_weights - delta[:, None])
        grad_q += dot(grad_scores, k)
        mean_k += dot(weights, k)
        error += tl.sum(grad_scores, 1)
        if norm_ptr is not None:
            total += tl.sum(weights, 1)
            if pad_key_ptr is not None:
                is_pad = (listed & ~is_real).to(tl.float32)
                pad_weight += tl.sum(weights * is_pad[None, :], 1)
                pad_grad += tl.sum(grad_scores * is_pad[None, :], 1)
        slot, row, column = next_tokens(slot, row, column, region_height, region_width, BLOCK_K)

    norm = tl.full([BLOCK_Q], 1, tl.float32)
    if norm_ptr is not None:
        norm = 1 / total
        tl.store(norm_ptr + number, norm, mask=is_query)
    error *= norm
    delta += error
    tl.store(stats_ptr + 2 * number, lse, mask=is_query)
    tl.store(stats_ptr + 2 * number + 1, delta, mask=is_query)
    grad_q = (grad_q - error[:, None] * mean_k) * (norm[:, None] * scale)
    store_tokens(grad_q_map, image, head, y, x, is_query, grad_q, D)

    if pad_key_ptr is not None:
        count = num_padded_keys(routes_ptr, topk, height, width, S)
        if count > 0:
            q32, grad_out32 = q.to(tl.float32), grad_out.to(tl.float32)
            if norm_ptr is not None:
                pad_grad = (pad_grad - error * pad_weight) * norm
                pad_weight *= norm
            else:
                pad_key = tl.load(pad_key_ptr + head * D + tl.arange(0, D))[None, :]
                pad_value = tl.load(pad_value_ptr + head * D + tl.arange(0, D))[None, :]
                score = tl.sum(q32 * pad_key, 1) * (scale * LOG2_E)
                pad_weight = count * tl.exp2(score - lse)
                pad_grad = pad_weight * (tl.sum(grad_out32 * pad_value, 1) - delta)
            part = (image * S * S + region) * tl.num_programs(1) + tl.program_id(1)
            channel = (part * num_heads + head) * D + tl.arange(0, D)
            tl.store(grad_pads[0] + channel, tl.sum(pad_grad[:, None] * q32, 0) * scale)
            tl.store(grad_pads[1] + channel, tl.sum(pad_weight[:, None] * grad_out32, 0))


@triton.jit
def _chunk_of_list(starts_ptr, item, chunk_size, S: tl.constexpr, REGIONS: tl.constexpr):
    """Which region's list, and which chunk of it, is work item number ``item``.

    The chunks of list r are the items from ``starts[r] // chunk_size + r`` on. It has at most
    ``starts[r + 1] // chunk_size - starts[r] // chunk_size + 1`` of them, so that none collide.
    """
    regions = tl.arange(0, REGIONS)
    starts = tl.load(starts_ptr + regions, mask=regions < S * S, other=0)
    is_before = (regions < S * S) & (starts // chunk_size + regions <= item)
    region = tl.sum(is_before.to(tl.int32)) - 1
    return region, item - (tl.load(starts_ptr + region) // chunk_size + region)


@triton.jit
def _partial_slot(start, chunk, chunk_size):
    """Where a list of several chunks keeps the sums of one of them, apart from all other lists.

    Such a list spans the multiples of ``chunk_size`` from the first above its start on, which no
    other list does. Each has two slots: one for a later chunk, one for the list's first chunk.
    """
    return 2 * (start // chunk_size + tl.maximum(chunk, 1)) - 1 - tl.minimum(chunk, 1)


@triton.jit(do_not_specialize=SIZES)
def backward_key_kernel(
    q_map,
    k_map,
    v_map,
    grad_out_map,
    grad_k_map,
    grad_v_map,
    partial_k_map,  # (B, slots, T, C) in float32, as the next
    partial_v_map,
    lists_ptr,  # (B, R * K): list of regions that route to region 0, of those to region 1, ...
    starts_ptr,  # (B, R + 1): where each of these lists starts
    stats_ptr,
    norm_ptr,
    height,
    width,
    topk,
    num_heads,
    chunk_size,
    scale,
    S: tl.constexpr,
    D: tl.constexpr,
    REGIONS: tl.constexpr,  # the power of two from R on
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradients of one tile of keys from one chunk of the list of regions that route to theirs.

    Grid (items, tiles of T, B * N). ``add_chunks_kernel`` follows for lists of several chunks.
    """
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    starts_ptr += image * (S * S + 1)
    region, chunk = _chunk_of_list(starts_ptr, tl.program_id(0), chunk_size, S, REGIONS)
    start, end = tl.load(starts_ptr + region), tl.load(starts_ptr + region + 1)
    length = tl.minimum(end - start - chunk * chunk_size, chunk_size)
    token, y, x, is_key, is_any = own_tile(region, height, width, S, BLOCK_K)
    if not is_any or (length <= 0 and chunk > 0):
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    lists_ptr += image * S * S * topk + start + chunk * chunk_size
    k = load_tokens(k_map, image, head, y, x, is_key, D)
    v = load_tokens(v_map, image, head, y, x, is_key, D)

    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_Q)
    for _ in range(0, length * region_height * region_width, BLOCK_Q):
        qy, qx, _listed, is_query = locate(lists_ptr, length, slot, row, column, height, width, S)
        q = load_tokens(q_map, image, head, qy, qx, is_query, D)
        grad_out = load_tokens(grad_out_map, image, head, qy, qx, is_query, D)
        number = ((image * height + qy) * width + qx) * num_heads + head
        # What is no query is all zeros, and adds nothing whatever its weight.
        pairs = stats_ptr + 2 * number[:, None] + tl.arange(0, 2)[None, :]
        lse, delta = tl.split(tl.load(pairs, mask=is_query[:, None], other=0.0))
        weights = tl.exp2(dot(k, tl.trans(q)) * (scale * LOG2_E) - lse[None, :])
        if norm_ptr is not None:
            weights *= tl.load(norm_ptr + number, mask=is_query, other=0.0)[None, :]
        grad_v += dot(weights, grad_out)
        grad_weights = dot(v, tl.trans(grad_out))
        grad_k += dot(weights * (grad_weights - delta[None, :]), q)
        slot, row, column = next_tokens(slot, row, column, region_height, region_width, BLOCK_Q)

    grad_k *= scale
    if end - start > chunk_size:
        partial = _partial_slot(start, chunk, chunk_size)
        store_tokens(partial_k_map, image, head, partial, token, is_key, grad_k, D)
        store_tokens(partial_v_map, image, head, partial, token, is_key, grad_v, D)
    else:
        store_tokens(grad_k_map, image, head, y, x, is_key, grad_k, D)
        store_tokens(grad_v_map, image, head, y, x, is_key, grad_v, D)


@triton.jit(do_not_specialize=SIZES)
def add_chunks_kernel(
    grad_k_map,
    grad_v_map,
    partial_k_map,
    partial_v_map,
    starts_ptr,
    height,
    width,
    num_heads,
    chunk_size,
    S: tl.constexpr,
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add up in order what ``backward_key_kernel`` left. Grid (R, tiles of T, B * N)."""
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    starts_ptr += image * (S * S + 1) + region
    start, end = tl.load(starts_ptr), tl.load(starts_ptr + 1)
    token, y, x, is_key, is_any = own_tile(region, height, width, S, BLOCK_K)
    if not is_any or end - start <= chunk_size:
        return
    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    for chunk in range(tl.cdiv(end - start, chunk_size)):
        partial = _partial_slot(start, chunk, chunk_size)
        grad_k += load_tokens(partial_k_map, image, head, partial, token, is_key, D)
        grad_v += load_tokens(partial_v_map, image, head, partial, token, is_key, D)
    store_tokens(grad_k_map, image, head, y, x, is_key, grad_k, D)
    store_tokens(grad_v_map, image, head, y, x, is_key, grad_v, D)
