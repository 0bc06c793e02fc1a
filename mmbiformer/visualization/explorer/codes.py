"""Queries and keys of routed maps in a few bytes, from which a page computes any attention.

A logit is the product of a query and a key, so a change of basis of the one and its inverse for
the other leave it as it is. In the basis where the second moments of both are the same diagonal
matrix (balanced truncation: Moore, IEEE Trans. Automatic Control, 1981) all rounding errors count
alike, and components that matter little round to zeros, which deflate to nothing.
"""

import bisect
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmbiformer.errors import UserError

from ..capture import RoutedMap

# Standard deviations of the errors of logits, from what no colour shows to where all is noise.
ERRORS = [0.02 * 1.1**i for i in range(64)]
LARGEST = 127  # of int8
# Of how many tokens the size is estimated, and at how many queries of a map the error is measured.
NUM_SAMPLES, NUM_QUERIES = 4096, 8
LEVEL = 6  # of zlib: 9 takes thrice as long for a percent


@dataclass
class Codes:
    """Queries and keys of a map: of head n and component d, offset + step * code.

    Attributes:
        stream (bytes): Deflated int8: queries (N, D, tokens), then keys (N, D, tokens).
        steps, offsets (Tensor): float32 (2, N, D), of queries first. The softmax scale is in the
            queries.
        pad_key (Tensor, optional): float32 (N, D), in the same basis.
        error (float): The largest error of an attention weight, as a share of 1, at some queries.
    """

    stream: bytes
    steps: Tensor
    offsets: Tensor
    pad_key: Tensor | None
    error: float


def encode(maps: Sequence[RoutedMap], max_bytes: int) -> tuple[list[Codes], float]:
    """Write queries and keys of maps so that all together stay below a size.

    Args:
        maps (Sequence[RoutedMap]): Of a batch of one each.
        max_bytes (int): Of all streams.

    Returns:
        tuple: The codes of each map, and about the standard deviation of the errors of logits.

    Raises:
        UserError: If a map is not finite, or they do not fit however coarse they are.
    """
    for routed in maps:
        if not (routed.query.isfinite().all() and routed.key.isfinite().all()):
            raise UserError(f'{routed.name} has queries or keys that are nan or infinite')
    balanced = [_Balanced(routed) for routed in maps]

    def fits(error: float) -> bool:
        return sum(x.estimate_size(error) for x in balanced) <= max_bytes

    first = min(bisect.bisect_left(ERRORS, True, key=fits), len(ERRORS) - 1)
    for error in ERRORS[first:]:
        codes = [x.encode(error) for x in balanced]
        if sum(len(x.stream) for x in codes) <= max_bytes:
            break
    else:
        raise UserError('the page does not fit --max-size: raise it, or choose fewer --modules')
    for routed, x in zip(maps, codes, strict=True):
        x.error = _largest_error(routed, decode(x, routed))
    return codes, error


def decode(codes: Codes, routed: RoutedMap) -> RoutedMap:
    """A map with the queries and keys of its codes, in their basis: what a page computes with."""
    num_heads, dim = codes.steps.shape[1:]
    values = torch.frombuffer(bytearray(zlib.decompress(codes.stream)), dtype=torch.int8)
    former = routed.query, routed.key
    found = []
    for x, part, steps, offsets in zip(
        former,
        values.split([num_heads * dim * x[0, ..., 0].numel() for x in former]),
        codes.steps,
        codes.offsets,
        strict=True,
    ):
        part = part.view(num_heads, dim, -1) * steps.unsqueeze(-1) + offsets.unsqueeze(-1)
        found.append(part.permute(2, 0, 1).reshape(1, *x.shape[1:3], -1))
    pad_key = None if codes.pad_key is None else codes.pad_key.flatten()
    return replace(routed, query=found[0], key=found[1], scale=1.0, pad_key=pad_key)


class _Balanced:
    """A map's queries and keys in the balanced basis, (N, D, tokens) each, without their means."""

    def __init__(self, routed: RoutedMap) -> None:
        num_heads, pad = routed.num_heads, routed.pad_key
        query, key = (
            x[0].double().flatten(0, 1).unflatten(-1, (num_heads, -1)).permute(1, 2, 0)
            for x in (routed.query, routed.key)
        )
        query = query * routed.scale
        means = [x.mean(-1, keepdim=True) for x in (query, key)]
        # Softmax forgets what the mean of keys adds to the logits of a query.
        roots = [_root(x) for x in (query, key - means[1])]
        u, values, vh = torch.linalg.svd(roots[0].mT @ roots[1])
        scale = values.sqrt().unsqueeze(-1)
        bases = [
            torch.linalg.solve_triangular(root, scale * x, upper=False, left=False)
            for root, x in zip(roots, (u.mT, vh), strict=True)
        ]
        self.parts = [
            (x @ (y - z)).float() for x, y, z in zip(bases, (query, key), means, strict=True)
        ]
        self.offsets = torch.stack([(x @ y)[..., 0] for x, y in zip(bases, means, strict=True)])
        self.pad_key = pad
        if pad is not None:
            self.pad_key = (bases[1] @ pad.double().view(num_heads, -1, 1))[..., 0].float()
        # A logit errs by its query and by its key: a variance of step**2 / 12 times this.
        self.spread = 2 * values.sum(-1, keepdim=True).float()

    def estimate_size(self, error: float) -> float:
        """About how many bytes the codes take, by those of some tokens."""
        size = 0.0
        for part, steps in zip(self.parts, self._steps(error), strict=True):
            some = part[..., :: max(1, part.shape[-1] // NUM_SAMPLES)]
            size += len(_deflate(_round(some, steps))) * part.shape[-1] / some.shape[-1]
        return size

    def encode(self, error: float) -> Codes:
        """The codes with errors of this standard deviation in their logits; see `Codes`."""
        steps = self._steps(error)
        content = b''.join(_round(x, y) for x, y in zip(self.parts, steps, strict=True))
        return Codes(_deflate(content), steps, self.offsets.float(), self.pad_key, error=0.0)

    def _steps(self, error: float) -> Tensor:
        """Of each component as large as the error allows, and at least as its range needs."""
        step = error * (12 / self.spread) ** 0.5
        return torch.stack([(x.abs().amax(-1) / LARGEST).clamp_min(step) for x in self.parts])


def _root(x: Tensor) -> Tensor:
    """The Cholesky root (N, D, D) of the second moments of tokens (N, D, tokens)."""
    dim, tokens = x.shape[1:]
    moments = x @ x.mT / tokens
    # With a little noise, or components that no token has would have no inverse.
    noise = 1e-8 * moments.diagonal(dim1=1, dim2=2).mean(-1) + 1e-20
    return torch.linalg.cholesky(moments + noise.view(-1, 1, 1) * torch.eye(dim).to(x))


def _round(part: Tensor, steps: Tensor) -> bytes:
    return (part / steps.unsqueeze(-1)).round().to(torch.int8).numpy().tobytes()


def _deflate(content: bytes) -> bytes:
    return zlib.compress(content, LEVEL)


def _largest_error(routed: RoutedMap, decoded: RoutedMap) -> float:
    """Of attention weights, at queries along the diagonal of the map."""
    height, width = routed.size
    errors = []
    for i in range(NUM_QUERIES):
        place = height * i // NUM_QUERIES, width * i // NUM_QUERIES
        a, b = (x.attention(*place).weights for x in (routed, decoded))
        errors.append((a - b).abs().max().item())
    return max(errors)
