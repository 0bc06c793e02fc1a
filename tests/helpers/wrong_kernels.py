"""Parts of the Triton kernels made wrong, under the names of the right ones."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.45)


@triton.jit
def _partial_slot(start, piece, piece_size):
    """All pieces of a list in one slot."""
    return 0 * piece


@triton.jit
def num_padded_keys(routes_ptr, topk, height, width, S: tl.constexpr):
    """No padding is seen."""
    return 0 * topk
