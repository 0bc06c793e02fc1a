"""PyTorch's ``flex_attention`` as programs of its compiler, whoever calls them."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

PROGRAMS = 64  # each number of tiles of a region, dtype and kind of padding is a program


@functools.cache
def compiled() -> Callable[..., Tensor]:
    """``flex_attention`` as programs.

    Beyond :data:`PROGRAMS` of them PyTorch raises. Without ``fullgraph`` it would go on with the
    plain code, which holds the scores of all pairs of tokens and ignores the lists of blocks.
    """
    return torch.compile(flex_attention, dynamic=True, fullgraph=True, recompile_limit=PROGRAMS)


# Within a program of another compiler than Inductor the plain code would run.
@torch.compiler.disable(recursive=False, reason="backend 'flex' has programs of its own")
def attend_to_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    listed: Tensor,
    block: tuple[int, int],
    is_key: Tensor | None,
    scale: float,
) -> Tensor:
    """Each block of queries attends to the blocks of keys that are listed for it.

    Args:
        q, k, v (Tensor): (B, N, R * T, D) for N heads and R blocks of T tokens.
        listed (Tensor): int32 numbers of blocks, (B, R, K).
        block (tuple): T of queries and of keys.
        is_key (Tensor, optional): bool, (R * T, ); keys where it is false take no part.
        scale (float): Softmax scale.

    Returns:
        Tensor: (B, N, R * T, D), T of the queries and D of the values.
    """
    batch, num_blocks, count = listed.shape
    listed = F.pad(listed, (0, num_blocks - count)).unsqueeze(1)  # for all heads
    counts = listed.new_full((batch, 1, num_blocks), count)
    # The kernels ask the mask in partial blocks alone, and for full ones these lists.
    lists = (counts, listed)
    if is_key is None:
        lists = (torch.zeros_like(counts), torch.zeros_like(listed), *lists)
    mask = BlockMask.from_kv_blocks(
        *lists,
        BLOCK_SIZE=block,
        mask_mod=functools.partial(_takes_part, is_key),
        seq_lengths=(q.shape[2], k.shape[2]),
    )
    return compiled()(q, k, v, block_mask=mask, scale=scale)


def _takes_part(
    is_key: Tensor | None, batch: Tensor, head: Tensor, query: Tensor, key: Tensor
) -> Tensor:
    """Whether a token of a listed block takes part as a key, in the form that masks have."""
    if not torch.compiler.is_compiling():
        raise RuntimeError(
            "backend 'flex' needs torch.compile, which is switched off: without it "
            "flex_attention would ignore which regions are listed; take 'chunked'"
        )
    return key >= 0 if is_key is None else is_key[key]
