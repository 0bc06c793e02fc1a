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
    """The tile of a region's real tokens that a program owns.

    Returns the tokens' numbers, their y and x on the map, and which of them are real, all of shape
    (BLOCK, ); and whether the tile has any real token.
    """
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
    """Slot, row and column of the tokens BLOCK further on, counted as an odometer does.

    Only scalars are divided, and their quotients do not change in a loop. To divide the number of
    every token would cost about as much as the softmax.
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
    """The y and x of tokens of a list of regions, and whether they are in the list, and real."""
    is_listed = slot < length
    region = tl.load(list_ptr + slot, mask=is_listed, other=0).to(tl.int32)
    y = region // S * tl.cdiv(height, S) + row
    x = region % S * tl.cdiv(width, S) + column
    return y, x, is_listed, is_listed & (y < height) & (x < width)


@triton.jit
def _pointers(x_map, image, head, y, x, D: tl.constexpr):
    """Pointers to tokens, (BLOCK, D); 16 bytes are one access where 16 divides all strides."""
    tensor, image_stride, row_stride, column_stride = x_map
    offset = y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride
    tensor += image * image_stride + head * D
    return tensor + offset[:, None] + tl.arange(0, D)[None, :]


@triton.jit
def load_tokens(x_map, image, head, y, x, is_real, D: tl.constexpr, pad_ptr=None, is_listed=None):
    """Tokens, (BLOCK, D): the pad where one is listed but not real, zeros where it is not listed.

    The pad is read at its own address in place of the token's, so that the scores need no mask for
    padding: such a mask in the layout of the products takes up to 80 registers.
    """
    pointers = _pointers(x_map, image, head, y, x, D)
    if pad_ptr is not None:
        pad = pad_ptr + head * D + tl.arange(0, D)
        pointers = tl.where(is_real[:, None], pointers, pad[None, :])
        is_real = is_listed
    return tl.load(pointers, mask=is_real[:, None], other=0.0)


@triton.jit
def store_tokens(x_map, image, head, y, x, is_real, tokens, D: tl.constexpr):
    """Write those of the tokens, (BLOCK, D), that are real, in the dtype of the map."""
    pointers = _pointers(x_map, image, head, y, x, D)
    tl.store(pointers, tokens.to(x_map[0].dtype.element_ty), mask=is_real[:, None])


@triton.jit
def dot(a, b):
    """a @ b in b's dtype with float32 sums: tensor cores for 16 bits, exact float32 otherwise."""
    a = a.to(b.dtype)
    if INTERPRETED:  # The interpreter makes garbage of bfloat16 products.
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
