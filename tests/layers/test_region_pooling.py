"""Poolings of keys and values against plain loops."""

from functools import partial

import numpy as np
import pooling_loops
import pytest
import torch
from layer_loops import randomise

from mmbiformer.layers.region_pooling import POOLINGS, LearnedPooling, build_region_pooling

QK_DIM, DIM = 3, 5
# S, and height and width of a region; the last ones are smaller than what is pooled to or from.
REGIONS = [(2, 6, 6), (3, 5, 7), (1, 9, 4), (2, 2, 3), (2, 1, 1)]
LOOPS = {
    'AdaptiveAvg': partial(pooling_loops.adaptive, reduce=partial(np.mean, axis=0)),
    'AdaptiveMax': partial(pooling_loops.adaptive, reduce=partial(np.max, axis=0)),
    'Avg': partial(pooling_loops.strided, reduce=partial(np.mean, axis=0)),
    'Max': partial(pooling_loops.strided, reduce=partial(np.max, axis=0)),
    'Fractional': partial(pooling_loops.fractional, draw=0.5),
}


def build(name: str, size: int) -> torch.nn.Module:
    pooling = build_region_pooling(QK_DIM, DIM, {'type': name, POOLINGS[name][1]: size})
    return randomise(pooling).eval()


@pytest.mark.parametrize(('s', 'h', 'w'), REGIONS)
@pytest.mark.parametrize('size', [1, 2, 3])
@pytest.mark.parametrize('name', POOLINGS)
def test_equals_loops(name, size, s, h, w):
    pooling = build(name, size)
    k, v = (torch.randn(2, s * h, s * w, dim, dtype=torch.float64) for dim in (QK_DIM, DIM))
    with torch.no_grad():
        pooled = pooling(k, v, s)
    for x, result, kind in zip((k, v), pooled, ('keys', 'values'), strict=True):
        if name == 'Learned':
            conv = getattr(pooling, f'pool_{kind}')
            weight, bias = conv.weight[:, 0].detach().numpy(), conv.bias.detach().numpy()
            loop = partial(pooling_loops.learned, weight=weight, bias=bias)
        else:
            loop = partial(LOOPS[name], **{POOLINGS[name][1]: size})
        high, wide = result.shape[1] // s, result.shape[2] // s
        for image, row, column in np.ndindex(2, s, s):
            region = x[image, row * h : (row + 1) * h, column * w : (column + 1) * w].numpy()
            tokens = result[image, row * high : (row + 1) * high]
            tokens = tokens[:, column * wide : (column + 1) * wide].flatten(0, 1)
            np.testing.assert_allclose(tokens, loop(region), rtol=0, atol=1e-14)


@pytest.mark.parametrize('name', POOLINGS)
def test_gradients(name):
    pooling = build(name, 2)
    maps = [torch.randn(1, 6, 8, d, dtype=torch.float64, requires_grad=True) for d in (2, 2)]
    if name == 'Learned':
        pooling = randomise(LearnedPooling(2, 2, ratio=2))
    assert torch.autograd.gradcheck(lambda k, v: tuple(pooling(k, v, 2)), maps)


def test_fractional_pooling_draws_once_for_keys_and_values_and_anew_for_each_region_and_step():
    pooling = build('Fractional', 3).train()
    k = torch.arange(8.0 * 8).view(1, 8, 8, 1)  # a token tells where it was
    k = k.repeat(1, 8, 8, 2)  # 8 x 8 regions that are alike, in two channels that are alike
    torch.manual_seed(0)
    (keys, values), (again, _) = pooling(k, k, 8), pooling(k, k, 8)
    assert torch.equal(keys, values)
    assert torch.equal(keys[..., 0], keys[..., 1])
    assert not torch.equal(keys, again)
    regions = keys[0, ..., 0].unfold(0, 3, 3).unfold(1, 3, 3).flatten(0, 1).flatten(1)
    assert len(regions.unique(dim=0)) == 4  # two ways along each axis, and all are met
    # Kernels are 3 wide, the last ends with the region, and steps are 2 or 3: so Graham has it.
    rows = regions.view(-1, 3, 3)[:, :, 0] // 8
    assert (rows[:, 2] == 7).all()
    assert set(rows.diff(dim=1).flatten().tolist()) == {2.0, 3.0}
    assert torch.equal(pooling.eval()(k, k, 8)[0], pooling(k, k, 8)[0])


def test_learned_pooling_begins_as_the_mean():
    k, v = torch.rand(1, 8, 8, QK_DIM), torch.rand(1, 8, 8, DIM)
    learned = build_region_pooling(QK_DIM, DIM, dict(type='Learned', ratio=2))(k, v, 2)
    mean = build_region_pooling(QK_DIM, DIM, dict(type='Avg', ratio=2))(k, v, 2)
    for result, expected in zip(learned, mean, strict=True):
        torch.testing.assert_close(result, expected)


WRONG = {
    'no dict': ('Avg', r"pooling='Avg' must be a dict with 'type', one of"),
    'no type': (dict(ratio=2), r"pooling={'ratio': 2} must be a dict with 'type'"),
    'type': (
        dict(type='fracpool', side=2),
        r"pooling=.*'fracpool'.* must be a dict with 'type', one of Ada",
    ),
    'other size': (dict(type='Avg', side=2), r"pooling 'Avg' takes ratio=.*, not {'side': 2}"),
    'no size': (dict(type='Fractional'), r"pooling 'Fractional' takes side=.*, not {}"),
    'zero': (
        dict(type='Learned', ratio=0),
        r"'Learned' takes ratio=.* on, not {'ratio': 0}",
    ),
}


@pytest.mark.parametrize(('options', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_region_pooling(4, 4, options)
