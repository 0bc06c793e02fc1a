"""CloFormer's attention against plain loops in float64, and its arguments."""

import numpy as np
import pytest
import torch
from layer_loops import linear, local_context, randomise

from mmbiformer.layers import CloAttention


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def clo_attention(layer: CloAttention, x: np.ndarray) -> np.ndarray:
    """The layer in plain loops, for a map (H, W, C)."""
    scale = layer.head_dim**-0.5
    parts = []
    for qkv, conv, gate in zip(layer.qkvs, layer.convs, layer.gates, strict=True):
        q, k, v = np.split(local_context(conv, linear(qkv, x)), 3, axis=-1)
        hidden = linear(gate[0], q * k)
        parts.append(np.tanh(scale * linear(gate[2], hidden * sigmoid(hidden))) * v)
    if layer.global_heads:
        parts.append(global_heads(layer, x, scale))
    return linear(layer.proj, np.concatenate(parts, axis=-1))


def global_heads(layer: CloAttention, x: np.ndarray, scale: float) -> np.ndarray:
    height, width, dim = x.shape
    size = layer.pool_size
    pooled = [
        x[top : top + size, left : left + size].reshape(-1, dim).mean(0)
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]
    queries = linear(layer.global_q, x)
    keys, values = np.split(linear(layer.global_kv, np.stack(pooled)), 2, axis=-1)
    out = np.empty_like(queries)
    for head in range(layer.global_heads):
        part = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
        for place in np.ndindex(height, width):
            weights = np.exp(scale * keys[:, part] @ queries[place][part])
            out[(*place, part)] = weights @ values[:, part] / weights.sum()
    return out


@pytest.mark.parametrize('size', [(8, 12), (9, 7), (1, 1), (2, 11)], ids=str)
@pytest.mark.parametrize(
    'options',
    [
        dict(conv_heads=(3,), kernel_sizes=(3,), global_heads=1, pool_size=4),
        dict(conv_heads=(1, 1), kernel_sizes=(7, 5), global_heads=2, pool_size=1),
        dict(conv_heads=(), kernel_sizes=(), global_heads=4, pool_size=3),
        dict(conv_heads=(4,), kernel_sizes=(9,), global_heads=0),
    ],
    ids=['3+1', '1+1+2', 'global alone', 'AttnConv alone'],
)
def test_is_the_loops(options, size):
    layer = randomise(CloAttention(16, **options))
    x = torch.randn(2, *size, 16, dtype=torch.float64)
    expected = np.stack([clo_attention(layer, image.numpy()) for image in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_has_no_layer_that_does_not_take_part():
    names = {name.split('.')[0] for name, _ in CloAttention(16, (4,), (3,), 0).named_parameters()}
    assert names == {'qkvs', 'convs', 'gates', 'proj'}
    names = {name.split('.')[0] for name, _ in CloAttention(16, (), (), 4).named_parameters()}
    assert names == {'global_q', 'global_kv', 'proj'}


WRONG = {
    'kernels': (
        dict(conv_heads=(3, 1)),
        r'kernel_sizes=\(3,\) must have as many entries as conv_heads=\(3, 1\)',
    ),
    'no heads': (dict(conv_heads=(), kernel_sizes=(), global_heads=0), r'one of them is needed'),
    'no head of a kernel': (dict(conv_heads=(0,)), r'conv_heads=0 must be an integer from 1 on$'),
    'heads that are no list': (dict(conv_heads=4), r'conv_heads=4 must be a list$'),
    'negative': (dict(global_heads=-1), r'global_heads=-1 must be an integer from 0 on$'),
    'negative width': (dict(dim=-16), r'dim=-16 must be an integer from 1 on$'),
    'width': (dict(global_heads=2), r'dim=16 does not divide into 5 heads, conv_heads=\(3,\) and'),
    'even': (dict(kernel_sizes=(4,)), r'kernel_sizes=\(4,\) has 4: it must be odd'),
    'fraction of a kernel': (dict(kernel_sizes=(3.0,)), r'kernel_sizes=3\.0 must be an integer'),
    'pool': (dict(pool_size=0), r'pool_size=0 must be an integer from 1 on$'),
    'fraction of a pool': (dict(pool_size=2.5), r'pool_size=2\.5 must be an integer from 1 on$'),
}


@pytest.mark.parametrize(('options', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CloAttention(**{'dim': 16, **options})
