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

LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)  # -inf would make -inf - -inf = nan
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)  # on the CPU, for tests
# Compiled once for all sizes of picture, whatever divides them.
SIZES = ['height', 'width', 'topk', 'num_heads', 'chunk_size']


@triton.jit
def _real_part(region, height, width, S: tl.constexpr):
    """Top and left of a region, and how many rows and columns of it are not padding."""
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    top = region // S * region_height
    left = region % S * region_width
    rows = tl.maximum(tl.minimum(height - top, region_height), 0)
    columns = tl.maximum(tl.minimum(width - left, region_width), 0)
    return top, left, rows, columns


@triton.jit
def _own_tile(region, height, width, S: tl.constexpr, BLOCK: tl.constexpr):
    """A program's tokens: number in the region, place on the map, which are real; is any?"""
    top, left, rows, columns = _real_part(region, height, width, S)
    first = tl.program_id(1) * BLOCK
    token = first + tl.arange(0, BLOCK)
    y, x = top + token // tl.maximum(columns, 1), left + token % tl.maximum(columns, 1)
    return token, y, x, token < rows * columns, first < rows * columns


@triton.jit
def _first_tokens(region_height, region_width, BLOCK: tl.constexpr):
    """Slot in a list of regions, and row and column in the region, of the list's first tokens."""
    token = tl.arange(0, BLOCK)
    row = token // region_width
    return row // region_height, row % region_height, token % region_width


@triton.jit
def _next_tokens(slot, row, column, region_height, region_width, BLOCK: tl.constexpr):
    """The tokens BLOCK further, counted as an odometer does: only scalars, which do not change in
    a loop, are divided. To divide every token's number would cost about as much as the softmax.
    """
    column += BLOCK % region_width
    carry = (column >= region_width).to(tl.int32)
    column -= carry * region_width
    row += BLOCK // region_width % region_height + carry
    carry = (row >= region_height).to(tl.int32)
    row -= carry * region_height
    slot += BLOCK // region_width // region_height + carry
    return slot, row, column


@triton.jit
def _locate(list_ptr, length, slot, row, column, height, width, S: tl.constexpr):
    """Place of tokens of a list of regions, whether they are listed, and whether on the map."""
    is_listed = slot < length
    region = tl.load(list_ptr + slot, mask=is_listed, other=0).to(tl.int32)
    y = region // S * tl.cdiv(height, S) + row
    x = region % S * tl.cdiv(width, S) + column
    return y, x, is_listed, is_listed & (y < height) & (x < width)


@triton.jit
def _pointers(x_map, image, head, y, x, D: tl.constexpr):
    """To the D channels of tokens; 16 bytes at once where 16 divides the strides, as it does C."""
    tensor, image_stride, row_stride, column_stride = x_map
    offset = y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride
    tensor += image * image_stride + head * D
    return tensor + offset[:, None] + tl.arange(0, D)[None, :]


@triton.jit
def _load(x_map, image, head, y, x, is_real, D: tl.constexpr, pad_ptr=None, is_listed=None):
    """Tokens (BLOCK, D); the pad for what is listed and not real, zeros for the rest.

    The pad is read by its address instead of a token's, so that the scores need no mask for
    padding: such a mask in the layout of the products takes up to 80 registers.
    """
    pointers = _pointers(x_map, image, head, y, x, D)
    if pad_ptr is not None:
        pad = pad_ptr + head * D + tl.arange(0, D)
        pointers = tl.where(is_real[:, None], pointers, pad[None, :])
        is_real = is_listed
    return tl.load(pointers, mask=is_real[:, None], other=0.0)


@triton.jit
def _store(x_map, image, head, y, x, is_real, rows, D: tl.constexpr):
    pointers = _pointers(x_map, image, head, y, x, D)
    tl.store(pointers, rows.to(x_map[0].dtype.element_ty), mask=is_real[:, None])


@triton.jit
def _dot(a, b):
    """a @ b in b's dtype with float32 sums: tensor cores for 16 bits, exact float32 otherwise."""
    a = a.to(b.dtype)
    if INTERPRETED:  # which makes garbage of bfloat16 products
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision='ieee')


@triton.jit
def _num_padded_keys(routes_ptr, topk, height, width, S: tl.constexpr):
    """How many tokens of the routed regions are padding."""
    num_real = 0
    for first in range(0, topk, 16):
        slot = first + tl.arange(0, 16)
        region = tl.load(routes_ptr + slot, mask=slot < topk, other=0).to(tl.int32)
        _top, _left, rows, columns = _real_part(region, height, width, S)
        num_real += tl.sum(tl.where(slot < topk, rows * columns, 0))
    return topk * tl.cdiv(height, S) * tl.cdiv(width, S) - num_real


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
    _token, y, x, is_query, is_any = _own_tile(region, height, width, S, BLOCK_Q)
    if not is_any:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = _load(q_map, image, head, y, x, is_query, D)
    best = tl.full([BLOCK_Q], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    out = tl.zeros([BLOCK_Q, D], tl.float32)
    slot, row, column = _first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_key = _locate(routes_ptr, topk, slot, row, column, height, width, S)
        k = _load(k_map, image, head, ky, kx, is_key, D, pad_key_ptr, listed)
        v = _load(v_map, image, head, ky, kx, is_key, D, pad_value_ptr, listed)
        if not MASKED:  # the same by cheaper means
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = _dot(q, tl.trans(k)) * (scale * LOG2_E)
        scores = tl.where(is_key[None, :], scores, float('-inf'))
        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None] + _dot(weights, v)
        best = new_best
        slot, row, column = _next_tokens(slot, row, column, region_height, region_width, BLOCK_K)
    _store(out_map, image, head, y, x, is_query, out / total[:, None], D)
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
    stats_ptr,  # (B, H, W, N, 2), for the other kernel: lse, scalar product of grad_out and out
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
    """Gradient of one tile of queries, and of the pads by way of it. Grid as in the forward."""
    region = tl.program_id(0)
    image, head = (tl.program_id(2) // num_heads).to(tl.int64), tl.program_id(2) % num_heads
    _token, y, x, is_query, is_any = _own_tile(region, height, width, S, BLOCK_Q)
    if not is_any:
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    routes_ptr += (image * S * S + region) * topk
    q = _load(q_map, image, head, y, x, is_query, D)
    grad_out = _load(grad_out_map, image, head, y, x, is_query, D)
    out = _load(out_map, image, head, y, x, is_query, D).to(tl.float32)
    delta = tl.sum(grad_out.to(tl.float32) * out, 1)
    number = ((image * height + y) * width + x) * num_heads + head
    lse = tl.load(lse_ptr + number, mask=is_query, other=0.0)
    tl.store(stats_ptr + 2 * number, lse, mask=is_query)
    tl.store(stats_ptr + 2 * number + 1, delta, mask=is_query)

    grad_q = tl.zeros([BLOCK_Q, D], tl.float32)
    slot, row, column = _first_tokens(region_height, region_width, BLOCK_K)
    num_keys = topk * region_height * region_width
    for first in range(0, num_keys, BLOCK_K):
        ky, kx, listed, is_key = _locate(routes_ptr, topk, slot, row, column, height, width, S)
        k = _load(k_map, image, head, ky, kx, is_key, D, pad_key_ptr, listed)
        v = _load(v_map, image, head, ky, kx, is_key, D, pad_value_ptr, listed)
        if not MASKED:  # the same by cheaper means
            is_key = first + tl.arange(0, BLOCK_K) < num_keys
        scores = _dot(q, tl.trans(k)) * (scale * LOG2_E)
        weights = tl.exp2(tl.where(is_key[None, :], scores - lse[:, None], float('-inf')))
        grad_weights = _dot(grad_out, tl.trans(v))
        grad_q += _dot(weights * (grad_weights - delta[:, None]), k)
        slot, row, column = _next_tokens(slot, row, column, region_height, region_width, BLOCK_K)
    if pad_key_ptr is not None:
        count = _num_padded_keys(routes_ptr, topk, height, width, S)
        if count > 0:
            pad_key = tl.load(pad_key_ptr + head * D + tl.arange(0, D))[None, :]
            pad_value = tl.load(pad_value_ptr + head * D + tl.arange(0, D))[None, :]
            q32, grad_out32 = q.to(tl.float32), grad_out.to(tl.float32)
            weight = count * tl.exp2(tl.sum(q32 * pad_key, 1) * (scale * LOG2_E) - lse)
            grad_score = weight * (tl.sum(grad_out32 * pad_value, 1) - delta)
            part = (image * S * S + region) * tl.num_programs(1) + tl.program_id(1)
            channel = (part * num_heads + head) * D + tl.arange(0, D)
            tl.store(grad_pads[0] + channel, tl.sum(grad_score[:, None] * q32, 0) * scale)
            tl.store(grad_pads[1] + channel, tl.sum(weight[:, None] * grad_out32, 0))
    _store(grad_q_map, image, head, y, x, is_query, grad_q * scale, D)


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
    token, y, x, is_key, is_any = _own_tile(region, height, width, S, BLOCK_K)
    if not is_any or (length <= 0 and chunk > 0):
        return
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    lists_ptr += image * S * S * topk + start + chunk * chunk_size
    k = _load(k_map, image, head, y, x, is_key, D)
    v = _load(v_map, image, head, y, x, is_key, D)

    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    slot, row, column = _first_tokens(region_height, region_width, BLOCK_Q)
    for _ in range(0, length * region_height * region_width, BLOCK_Q):
        qy, qx, _listed, is_query = _locate(lists_ptr, length, slot, row, column, height, width, S)
        q = _load(q_map, image, head, qy, qx, is_query, D)
        grad_out = _load(grad_out_map, image, head, qy, qx, is_query, D)
        number = ((image * height + qy) * width + qx) * num_heads + head
        # What is no query is all zeros, and adds nothing whatever its weight.
        pairs = stats_ptr + 2 * number[:, None] + tl.arange(0, 2)[None, :]
        lse, delta = tl.split(tl.load(pairs, mask=is_query[:, None], other=0.0))
        weights = tl.exp2(_dot(k, tl.trans(q)) * (scale * LOG2_E) - lse[None, :])
        grad_v += _dot(weights, grad_out)
        grad_weights = _dot(v, tl.trans(grad_out))
        grad_k += _dot(weights * (grad_weights - delta[None, :]), q)
        slot, row, column = _next_tokens(slot, row, column, region_height, region_width, BLOCK_Q)

    grad_k *= scale
    if end - start > chunk_size:
        partial = _partial_slot(start, chunk, chunk_size)
        _store(partial_k_map, image, head, partial, token, is_key, grad_k, D)
        _store(partial_v_map, image, head, partial, token, is_key, grad_v, D)
    else:
        _store(grad_k_map, image, head, y, x, is_key, grad_k, D)
        _store(grad_v_map, image, head, y, x, is_key, grad_v, D)


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
    token, y, x, is_key, is_any = _own_tile(region, height, width, S, BLOCK_K)
    if not is_any or end - start <= chunk_size:
        return
    grad_k = tl.zeros([BLOCK_K, D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, D], tl.float32)
    for chunk in range(tl.cdiv(end - start, chunk_size)):
        partial = _partial_slot(start, chunk, chunk_size)
        grad_k += _load(partial_k_map, image, head, partial, token, is_key, D)
        grad_v += _load(partial_v_map, image, head, partial, token, is_key, D)
    _store(grad_k_map, image, head, y, x, is_key, grad_k, D)
    _store(grad_v_map, image, head, y, x, is_key, grad_v, D)
