"""GPU kernels of routed attention: what one program computes. ``triton_backend.py`` launches them.

Letters: B batch, H and W height and width of the map, S partition factor, R = S * S regions,
T tokens per region, K routed regions, N heads, D head dim, C = N * D channels. A map (B, H, W, C)
comes as a tuple: the tensor and its strides of B, H and W; the stride of C is 1.

A program owns a tile of the real tokens, a rectangle on the map, of one region, image and head. It
walks through the tokens of a list of regions in blocks that cross from one region to the next, so
that only the last block is partly empty. Maps store no padding: the pad is read in its place.

The softmax is in base 2, sums are in float32, offsets of tokens in 64 bits. No kernel adds
atomically: every sum has a fixed order, so that results repeat bitwise.
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
# Triton would compile a kernel again for values of these that are 1 or that 16 divides.
SIZES = ['height', 'width', 'topk', 'num_heads', 'piece_size']


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    q_map,
    k_map,
    v_map,
    out_map,
    routes_ptr,  # (B, R, K)
    pad_key_ptr,  # (C, ); None where padding takes no part
    pad_value_ptr,  # (C, ) or None, as pad_key
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
    MASKED: tl.constexpr,  # whether there is padding, and it takes no part
):
    """Output and log-sum-exp of a tile of queries. The launch grid is (R, tiles of T, B * N)."""
    # 1. The tile of queries that this program owns, and the regions that they attend to.
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    _token, y, x, is_query, has_tokens = own_tile(region, height, width, S, BLOCK_Q)
    if not has_tokens:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = load_tokens(q_map, image, head, y, x, is_query, D)  # (BLOCK_Q, D)

    # 2. The loop over routed keys. Weights are relative to the largest score so far; where a
    # larger one comes, what has been summed up shrinks by their ratio.
    largest = tl.full([BLOCK_Q], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    out = tl.zeros([BLOCK_Q, D], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_key = locate(routes_ptr, topk, slot, row, column, height, width, S)
        # k and v: (BLOCK_K, D)
        k = load_tokens(k_map, image, head, ky, kx, is_key, D, pad_key_ptr, listed)
        v = load_tokens(v_map, image, head, ky, kx, is_key, D, pad_value_ptr, listed)
        if not MASKED:  # All listed tokens are keys, pads too; cheaper to count than `listed`.
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = dot(q, tl.trans(k)) * (scale * LOG2_E)  # (BLOCK_Q, BLOCK_K)
        scores = tl.where(is_key[None, :], scores, float('-inf'))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None] + dot(weights, v)
        largest = new_largest
        slot, row, column = next_tokens(slot, row, column, region_height, region_width, BLOCK_K)

    # 3. What is stored: the output, and the log-sum-exp for the backward pass.
    store_tokens(out_map, image, head, y, x, is_query, out / total[:, None], D)
    offset = ((image * height + y) * width + x) * num_heads + head  # (BLOCK_Q, )
    tl.store(lse_ptr + offset, largest + tl.log2(total), mask=is_query)


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
    stats_ptr,  # (B, H, W, N, 2), written for backward_key_kernel: lse and delta of every query
    norm_ptr,  # (B, H, W, N), written likewise for float32 maps; None for 16 bits
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
    """Gradients of a tile of queries, and of the pads by way of it. Launched as the forward is.

    With float32 maps the rounding of lse is corrected as well (phase 3), and the gradients of the
    pads come from sums in the loop, which round as those of all other keys do. With 16 bits such
    sums would take 70 registers more. There the scores of the pads are computed again: gradients
    are as exact as float32, but not quite zero where the pads have all the weight.
    """
    # 1. The tile of queries that this program owns, and the regions that they attend to.
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    _token, y, x, is_query, has_tokens = own_tile(region, height, width, S, BLOCK_Q)
    if not has_tokens:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = load_tokens(q_map, image, head, y, x, is_query, D)  # (BLOCK_Q, D), as the next two
    grad_out = load_tokens(grad_out_map, image, head, y, x, is_query, D)
    out = load_tokens(out_map, image, head, y, x, is_query, D).to(tl.float32)
    delta = tl.sum(grad_out.to(tl.float32) * out, 1)  # (BLOCK_Q, )
    offset = ((image * height + y) * width + x) * num_heads + head
    lse = tl.load(lse_ptr + offset, mask=is_query, other=0.0)  # (BLOCK_Q, )

    # 2. The loop over routed keys: sums by the rounded lse and delta, and sums to correct them.
    grad_q = tl.zeros([BLOCK_Q, D], tl.float32)
    mean_k = tl.zeros([BLOCK_Q, D], tl.float32)
    error = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    pad_weight = tl.zeros([BLOCK_Q], tl.float32)
    pad_grad = tl.zeros([BLOCK_Q], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_real = locate(routes_ptr, topk, slot, row, column, height, width, S)
        # k and v: (BLOCK_K, D)
        k = load_tokens(k_map, image, head, ky, kx, is_real, D, pad_key_ptr, listed)
        v = load_tokens(v_map, image, head, ky, kx, is_real, D, pad_value_ptr, listed)
        is_key = is_real
        if not MASKED:  # as in the forward
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = dot(q, tl.trans(k)) * (scale * LOG2_E)  # (BLOCK_Q, BLOCK_K)
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

    # 3. The correction of delta, the mean gradient of a query's weights. Let w_j be the weight of
    # key j as computed from the rounded lse, and g_j = grad_out . v_j the gradient of it. Then
    #     norm  = 1 / sum_j w_j                          so that the exact weights are norm w_j,
    #     mean  = sum_j norm w_j g_j                     is grad_out . out without its rounding,
    #     error = norm sum_j w_j (g_j - delta)           is mean - delta,
    # and the exact gradient of score j is
    #     norm w_j (g_j - mean) = norm (w_j (g_j - delta) - error w_j).
    # The loop has summed up both terms. Without the second one, the gradients would be lost in the
    # rounding of out where one weight is nearly 1. With 16 bits lse is exact enough: norm is 1.
    norm = tl.full([BLOCK_Q], 1, tl.float32)
    if norm_ptr is not None:
        norm = 1 / total
        tl.store(norm_ptr + offset, norm, mask=is_query)
    error *= norm
    delta += error
    tl.store(stats_ptr + 2 * offset, lse, mask=is_query)
    tl.store(stats_ptr + 2 * offset + 1, delta, mask=is_query)
    grad_q = (grad_q - error[:, None] * mean_k) * (norm[:, None] * scale)
    store_tokens(grad_q_map, image, head, y, x, is_query, grad_q, D)

    # 4. This program's part of the gradients of the pads, corrected likewise.
    if pad_key_ptr is not None:
        num_padded = num_padded_keys(routes_ptr, topk, height, width, S)
        if num_padded > 0:
            q32, grad_out32 = q.to(tl.float32), grad_out.to(tl.float32)
            if norm_ptr is not None:
                pad_grad = (pad_grad - error * pad_weight) * norm
                pad_weight *= norm
            else:
                pad_key = tl.load(pad_key_ptr + head * D + tl.arange(0, D))[None, :]  # (1, D)
                pad_value = tl.load(pad_value_ptr + head * D + tl.arange(0, D))[None, :]
                score = tl.sum(q32 * pad_key, 1) * (scale * LOG2_E)
                pad_weight = num_padded * tl.exp2(score - lse)
                pad_grad = pad_weight * (tl.sum(grad_out32 * pad_value, 1) - delta)
            part = (image * S * S + region) * tl.num_programs(1) + tl.program_id(1)
            channel = (part * num_heads + head) * D + tl.arange(0, D)
            tl.store(grad_pads[0] + channel, tl.sum(pad_grad[:, None] * q32, 0) * scale)
            tl.store(grad_pads[1] + channel, tl.sum(pad_weight[:, None] * grad_out32, 0))


@triton.jit
def _piece_of_list(starts_ptr, item, piece_size, S: tl.constexpr, REGIONS: tl.constexpr):
    """The region whose list work item number ``item`` belongs to, and the piece of that list.

    The pieces of list r are the items from ``starts[r] // piece_size + r`` on. It has at most
    ``starts[r + 1] // piece_size - starts[r] // piece_size + 1`` of them, so that none collide.
    """
    regions = tl.arange(0, REGIONS)
    starts = tl.load(starts_ptr + regions, mask=regions < S * S, other=0)
    is_before = (regions < S * S) & (starts // piece_size + regions <= item)
    region = tl.sum(is_before.to(tl.int32)) - 1
    return region, item - (tl.load(starts_ptr + region) // piece_size + region)


@triton.jit
def _partial_slot(start, piece, piece_size):
    """Where a list of several pieces keeps the sums of one of them, apart from all other lists.

    Such a list spans the multiples of ``piece_size`` from the first above its start on, which no
    other list does. Each has two slots: one for a later piece, one for the list's first piece.
    """
    return 2 * (start // piece_size + tl.maximum(piece, 1)) - 1 - tl.minimum(piece, 1)


@triton.jit(do_not_specialize=SIZES)
def backward_key_kernel(
    q_map,
    k_map,
    v_map,
    grad_out_map,
    grad_k_map,
    grad_v_map,
    partial_k_map,  # (B, slots, T, C) in float32
    partial_v_map,  # likewise
    lists_ptr,  # (B, R * K): the regions that route to region 0, those that do to region 1, ...
    starts_ptr,  # (B, R + 1): where each of these lists starts
    stats_ptr,
    norm_ptr,
    height,
    width,
    topk,
    num_heads,
    piece_size,
    scale,
    S: tl.constexpr,
    D: tl.constexpr,
    REGIONS: tl.constexpr,  # R, rounded up to a power of two
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradients of a tile of keys, from a piece of the list of regions that route to their region.

    The launch grid is (items, tiles of T, B * N). Where a list has several pieces, their sums are
    stored apart, and ``add_pieces_kernel`` adds them up.
    """
    # 1. The tile of keys and the piece of a list that this program owns.
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    starts_ptr += image * (S * S + 1)
    region, piece = _piece_of_list(starts_ptr, tl.program_id(0), piece_size, S, REGIONS)
    start, end = tl.load(starts_ptr + region), tl.load(starts_ptr + region + 1)
    length = tl.minimum(end - start - piece * piece_size, piece_size)
    token, y, x, is_key, has_tokens = own_tile(region, height, width, S, BLOCK_K)
    if not has_tokens or (length <= 0 and piece > 0):
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    lists_ptr += image * S * S * topk + start + piece * piece_size
    k = load_tokens(k_map, image, head, y, x, is_key, D)  # (BLOCK_K, D)
    v = load_tokens(v_map, image, head, y, x, is_key, D)

    # 2. The loop over the queries that route here, whose delta is corrected already.
    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    slot, row, column = first_tokens(region_height, region_width, BLOCK_Q)
    for _ in range(0, length * region_height * region_width, BLOCK_Q):
        qy, qx, _listed, is_query = locate(lists_ptr, length, slot, row, column, height, width, S)
        # q and grad_out: (BLOCK_Q, D), zeros for what is no query, which so adds nothing.
        q = load_tokens(q_map, image, head, qy, qx, is_query, D)
        grad_out = load_tokens(grad_out_map, image, head, qy, qx, is_query, D)
        offset = ((image * height + qy) * width + qx) * num_heads + head  # (BLOCK_Q, )
        pairs = stats_ptr + 2 * offset[:, None] + tl.arange(0, 2)[None, :]
        lse, delta = tl.split(tl.load(pairs, mask=is_query[:, None], other=0.0))
        scores = dot(k, tl.trans(q)) * (scale * LOG2_E)  # (BLOCK_K, BLOCK_Q)
        weights = tl.exp2(scores - lse[None, :])
        if norm_ptr is not None:
            weights *= tl.load(norm_ptr + offset, mask=is_query, other=0.0)[None, :]
        grad_v += dot(weights, grad_out)
        grad_weights = dot(v, tl.trans(grad_out))
        grad_k += dot(weights * (grad_weights - delta[None, :]), q)
        slot, row, column = next_tokens(slot, row, column, region_height, region_width, BLOCK_Q)

    # 3. What is stored: the gradients, or where the list has several pieces, this piece's part.
    grad_k *= scale
    if end - start > piece_size:
        partial = _partial_slot(start, piece, piece_size)
        store_tokens(partial_k_map, image, head, partial, token, is_key, grad_k, D)
        store_tokens(partial_v_map, image, head, partial, token, is_key, grad_v, D)
    else:
        store_tokens(grad_k_map, image, head, y, x, is_key, grad_k, D)
        store_tokens(grad_v_map, image, head, y, x, is_key, grad_v, D)


@triton.jit(do_not_specialize=SIZES)
def add_pieces_kernel(
    grad_k_map,
    grad_v_map,
    partial_k_map,
    partial_v_map,
    starts_ptr,
    height,
    width,
    num_heads,
    piece_size,
    S: tl.constexpr,
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add up, in order, the parts of lists of several pieces. Launched as the forward is."""
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    starts_ptr += image * (S * S + 1) + region
    start, end = tl.load(starts_ptr), tl.load(starts_ptr + 1)
    token, y, x, is_key, has_tokens = own_tile(region, height, width, S, BLOCK_K)
    if not has_tokens or end - start <= piece_size:
        return
    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    for piece in range(tl.cdiv(end - start, piece_size)):
        partial = _partial_slot(start, piece, piece_size)
        grad_k += load_tokens(partial_k_map, image, head, partial, token, is_key, D)
        grad_v += load_tokens(partial_v_map, image, head, partial, token, is_key, D)
    store_tokens(grad_k_map, image, head, y, x, is_key, grad_k, D)
    store_tokens(grad_v_map, image, head, y, x, is_key, grad_v, D)
