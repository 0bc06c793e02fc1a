"""What the GPU kernels of routed attention share: tokens of regions, and their place on a map.

Letters and maps are explained in ``triton_kernels.py``.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)  # on the CPU, for tests


@triton.jit
def real_part(region, height, width, S: tl.constexpr):
    """Top and left of a region, and how many rows and columns of it are not padding."""
    region_height, region_width = tl.cdiv(height, S), tl.cdiv(width, S)
    top = region // S * region_height
    left = region % S * region_width
    rows = tl.maximum(tl.minimum(height - top, region_height), 0)
    columns = tl.maximum(tl.minimum(width - left, region_width), 0)
    return top, left, rows, columns


@triton.jit
def own_tile(region, height, width, S: tl.constexpr, BLOCK: tl.constexpr):
    """A program's tokens: number in the region, place on the map, which are real; is any?"""
    top, left, rows, columns = real_part(region, height, width, S)
    first = tl.program_id(1) * BLOCK
    token = first + tl.arange(0, BLOCK)
    y, x = top + token // tl.maximum(columns, 1), left + token % tl.maximum(columns, 1)
    return token, y, x, token < rows * columns, first < rows * columns


@triton.jit
def first_tokens(region_height, region_width, BLOCK: tl.constexpr):
    """Slot in a list of regions, and row and column in the region, of the list's first tokens."""
    token = tl.arange(0, BLOCK)
    row = token // region_width
    return row // region_height, row % region_height, token % region_width


@triton.jit
def next_tokens(slot, row, column, region_height, region_width, BLOCK: tl.constexpr):
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
def locate(list_ptr, length, slot, row, column, height, width, S: tl.constexpr):
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
def load_tokens(x_map, image, head, y, x, is_real, D: tl.constexpr, pad_ptr=None, is_listed=None):
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
def store_tokens(x_map, image, head, y, x, is_real, rows, D: tl.constexpr):
    pointers = _pointers(x_map, image, head, y, x, D)
    tl.store(pointers, rows.to(x_map[0].dtype.element_ty), mask=is_real[:, None])


@triton.jit
def dot(a, b):
    """a @ b in b's dtype with float32 sums: tensor cores for 16 bits, exact float32 otherwise."""
    a = a.to(b.dtype)
    if INTERPRETED:  # which makes garbage of bfloat16 products
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision='ieee')


@triton.jit
def num_padded_keys(routes_ptr, topk, height, width, S: tl.constexpr):
    """How many tokens of the routed regions are padding."""
    num_real = 0
    for first in range(0, topk, 16):
        slot = first + tl.arange(0, 16)
        region = tl.load(routes_ptr + slot, mask=slot < topk, other=0).to(tl.int32)
        _top, _left, rows, columns = real_part(region, height, width, S)
        num_real += tl.sum(tl.where(slot < topk, rows * columns, 0))
    return topk * tl.cdiv(height, S) * tl.cdiv(width, S) - num_real
