"""Attention from codes is that of the map, as exact as the bytes allow."""

import pytest
import torch
from layer_loops import randomise

from mmbiformer.errors import UserError
from mmbiformer.layers import BiLevelRoutingAttention
from mmbiformer.visualization import RoutedMap, capture_routing
from mmbiformer.visualization.explorer.codes import ERRORS, decode, encode

VARIANTS = {
    'official': dict(padding='official'),
    'masked': dict(padding='masked'),
    'narrow queries': dict(qk_dim=4, scale=0.3),
    'soft': dict(routing='soft', padding='masked'),
    'soft, with padding': dict(routing='soft'),
    'pooled': dict(pooling=dict(type='AdaptiveAvg', side=2)),
}
PLENTY = 10**9


def routed_map(x: torch.Tensor, gain: float = 3.0, **options) -> RoutedMap:
    """What a random module routes on a map, with logits as wide as those of trained models."""
    module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, **options))
    module.qkv.weight.data *= gain
    with torch.no_grad(), capture_routing(module) as captured:
        module(x)
    return captured[0]


def largest_difference(a: RoutedMap, b: RoutedMap) -> float:
    """Of all attention weights of all tokens, padding included."""
    height, width = a.size
    found = []
    for row in range(height):
        for column in range(width):
            both = [x.attention(row, column) for x in (a, b)]
            found += [(p - q).abs().max() for p, q in zip(*both, strict=True)]
    return torch.stack(found).max().item()


@pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS)
def test_attention_is_that_of_the_map(options):
    routed = routed_map(torch.randn(1, 10, 13, 8, dtype=torch.float64), **options)
    (codes,), error = encode([routed], PLENTY)
    assert error == ERRORS[0]
    # Logits err by 0.02 as a rule and by four times that at most, hence weights by 8 % of theirs.
    assert largest_difference(routed, decode(codes, routed)) < 0.08
    assert codes.error < 0.08


def test_errors_grow_as_the_size_shrinks():
    routed = routed_map(torch.randn(1, 40, 40, 8, dtype=torch.float64))
    sizes, errors, measured = [], [], []
    for max_bytes in (PLENTY, 16000, 8000, 4000):
        (codes,), error = encode([routed], max_bytes)
        assert len(codes.stream) <= max_bytes
        sizes.append(len(codes.stream))
        errors.append(error)
        measured.append(codes.error)
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[1] > 12000  # what is allowed is used
    assert measured[0] < 0.3 * measured[-1]


def test_logits_err_as_much_as_is_said():
    routed = routed_map(torch.randn(1, 32, 32, 8, dtype=torch.float64), padding='masked')
    (codes,), error = encode([routed], 8000)
    decoded = decode(codes, routed)
    logits = []
    for x in (routed, decoded):
        query, key = (y[0].double().flatten(0, 1).unflatten(-1, (2, -1)) for y in (x.query, x.key))
        some = x.scale * torch.einsum('ind,jnd->nij', query, key)
        logits.append(some - some.mean(-1, keepdim=True))  # which softmax forgets
    assert 0.5 * error < (logits[0] - logits[1]).std() < 1.5 * error


def test_components_that_no_token_has():
    """A map of equal tokens: its queries and keys span nothing, or one direction."""
    routed = routed_map(torch.ones(1, 9, 9, 8, dtype=torch.float64))
    (codes,), _ = encode([routed], PLENTY)
    assert len(codes.stream) < 100
    assert largest_difference(routed, decode(codes, routed)) < 1e-3


def test_bytes_that_are_too_few():
    routed = routed_map(torch.randn(1, 20, 20, 8, dtype=torch.float64))
    with pytest.raises(UserError, match='does not fit --max-size'):
        encode([routed], 20)


def test_weights_that_are_not_finite():
    routed = routed_map(torch.randn(1, 9, 9, 8, dtype=torch.float64))
    routed.query[0, 3, 4, 5] = torch.nan
    with pytest.raises(UserError, match='has queries or keys that are nan or infinite'):
        encode([routed], PLENTY)


def test_maps_share_the_bytes():
    """The one that says more gets more of them."""
    maps = [routed_map(torch.randn(1, 20, 20, 8, dtype=torch.float64), g) for g in (0.5, 5)]
    codes, _ = encode(maps, 4000)
    assert sum(len(x.stream) for x in codes) <= 4000
    assert len(codes[1].stream) > 2 * len(codes[0].stream)
