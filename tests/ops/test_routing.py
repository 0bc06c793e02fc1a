"""Which regions a region attends to, against loops."""

from unittest.mock import Mock

import pytest
import torch
from launches import CountLaunches
from loops import SIZES, pad, route
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from mmbiformer.ops import any_size, routing, routing_indices
from mmbiformer.ops.routing import region_means
from mmbiformer.ops.routing import route as route_maps

each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)


def random(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def as_sets(indices: torch.Tensor) -> list[list[set]]:
    return [[set(row.tolist()) for row in image] for image in indices]


@each_size
@pytest.mark.parametrize('topk', [1, 2, 'all'])
def test_masked_padding_chooses_among_real_regions_first(height, width, s, topk):
    topk = s * s if topk == 'all' else min(topk, s * s)
    q, k = random(2, 2, height, width, 8)
    indices = routing_indices(q, k, topk, s)
    assert indices.shape == (2, s * s, topk)
    assert indices.dtype == torch.int64
    for image, chosen in enumerate(as_sets(indices)):
        padded = [pad(x[image].numpy(), s, float('nan')) for x in (q, k)]
        expected = route(*padded, s, topk, (height, width))
        assert all(len(regions) == topk for regions in chosen)
        # Where there are fewer real regions than topk, padding fills up.
        assert all(a >= b for a, b in zip(chosen, expected, strict=True))
        # A region of padding alone attends to something real too: no softmax is over nothing.
        real = {j for j, regions in enumerate(expected) if regions}
        assert all(regions & real for regions in chosen)


@pytest.mark.parametrize('topk', [1, 3])
@pytest.mark.parametrize(('height', 'width', 's'), [(8, 4, 2), (7, 5, 3), (5, 8, 3), (3, 5, 1)])
def test_official_padding_counts_in_the_means(height, width, s, topk):
    topk = min(topk, s * s)
    q, k = random(2, 2, height, width, 8)
    pad_query, pad_key = random(2, 8)
    indices = routing_indices(q, k, topk, s, pad_query, pad_key)
    for image, chosen in enumerate(as_sets(indices)):
        padded_q = pad(q[image].numpy(), s, pad_query.numpy())
        padded_k = pad(k[image].numpy(), s, pad_key.numpy())
        assert chosen == route(padded_q, padded_k, s, topk, padded_q.shape[:2])


def test_padding_changes_the_route_of_partial_regions():
    # One column of real keys against one of padding: the mean's sign flips.
    q = torch.ones(1, 1, 3, 1)
    k = torch.tensor([1.0, 1.0, 3.0]).view(1, 1, 3, 1)
    assert routing_indices(q, k, 1, 2)[0, 0].item() == 1
    pads = torch.zeros(1), torch.tensor([-9.0])
    assert routing_indices(q, k, 1, 2, *pads)[0, 0].item() == 0


def test_region_means():
    x = torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1)
    # Regions of 1 x 2 tokens; the lower two are padding alone.
    assert region_means(x, 2).flatten().tolist() == [1.5, 6.0, 0.0, 0.0]
    assert region_means(x, 2, torch.tensor([4.0])).flatten().tolist() == [1.5, 5.0, 4.0, 4.0]


def test_routing_is_not_differentiated():
    q, k, pad_query, pad_key = (
        x.requires_grad_() for x in (random(1, 5, 5, 4), random(1, 5, 5, 4), random(4), random(4))
    )
    saved = []
    with saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        for pads in [(), (pad_query, pad_key)]:
            assert not routing_indices(q, k, 2, 2, *pads).requires_grad
        assert not saved
        (q * k).sum()
        assert saved  # the hook does see what a differentiated product saves


@pytest.mark.parametrize('official', [True, False], ids=['official', 'masked'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32], ids=str)
def test_autocast_does_not_round_the_affinity(dtype, official):
    q, k = random(2, 2, 18, 22, 32, dtype=dtype)
    pads = random(2, 32, dtype=dtype) if official else ()
    expected = routing_indices(q.float(), k.float(), 4, 8, *(pad.float() for pad in pads))
    with torch.autocast('cpu', torch.bfloat16):
        assert as_sets(routing_indices(q, k, 4, 8, *pads)) == as_sets(expected)
    assert as_sets(routing_indices(q, k, 4, 8, *pads)) == as_sets(expected)


@pytest.mark.parametrize('topk', [0, 5])
def test_topk_out_of_range_is_named(topk):
    q = random(1, 4, 4, 8)
    with pytest.raises(ValueError, match=f'topk={topk} .* 1 to the 4 regions .*factor=2'):
        routing_indices(q, q, topk, 2)


@pytest.mark.parametrize(
    'pads', [dict(pad_query=random(8)), dict(pad_key=random(8))], ids='-'.join
)
def test_one_pad_alone_is_an_error(pads):
    q = random(1, 4, 4, 8)
    with pytest.raises(ValueError, match=r'pad_query and pad_key .*: give both or none'):
        routing_indices(q, q, 1, 2, **pads)


def test_the_affinity_is_that_of_the_means():
    q, k, (pad_query, pad_key) = random(1, 7, 5, 4), random(1, 7, 5, 4), random(2, 4)
    routing = route_maps(q, k, 2, 3, pad_query, pad_key)
    expected = region_means(q, 3, pad_query) @ region_means(k, 3, pad_key).transpose(1, 2)
    torch.testing.assert_close(routing.affinity, expected, rtol=0, atol=1e-13)
    best = routing.affinity.topk(2).values.sort(-1).values
    chosen = routing.affinity.gather(2, routing.indices).sort(-1).values
    assert torch.equal(chosen, best)
    masked = route_maps(q, k, 2, 4)  # 4 x 3 of 4 x 4 regions hold tokens
    assert masked.affinity[0, 0].isinf().tolist() == [i % 4 == 3 for i in range(16)]


@pytest.mark.parametrize('official', [True, False], ids=['official', 'masked'])
@pytest.mark.parametrize('size', [(200, 336), (50, 84), (48, 96)], ids=str)
def test_launches_on_gpus(size, official):
    """A device without data takes the path of GPUs, and tells what would be launched there."""
    qkv = torch.empty(2, *size, 96, dtype=torch.bfloat16, device='meta')
    q, k, _ = qkv.chunk(3, dim=-1)
    pads = torch.empty(2, 32, dtype=torch.bfloat16, device='meta') if official else ()
    routing_indices(q, k, 4, 16, *pads)
    with CountLaunches() as launches:
        routing_indices(q, k, 4, 16, *pads)
    assert 5 <= launches.total() <= 8, launches


@pytest.mark.parametrize('official', [True, False], ids=['official', 'masked'])
@each_size
def test_the_path_of_gpus_gives_what_that_of_cpus_gives(monkeypatch, height, width, s, official):
    q, k, (pad_query, pad_key) = *random(2, 2, height, width, 8), random(2, 8)
    pads = (pad_query, pad_key) if official else (None, None)
    expected = route_maps(q, k, 1, s, *pads)
    both = Mock(wraps=torch.stack)
    monkeypatch.setattr(torch, 'stack', both)
    monkeypatch.setattr(any_size, 'is_on_cpu', lambda x: False)
    monkeypatch.setattr(routing, 'is_on_cpu', lambda x: False)
    found = route_maps(q, k, 1, s, *pads)
    assert both.call_count == (2 if official else 1)
    torch.testing.assert_close(found.affinity, expected.affinity, rtol=0, atol=1e-13)
    assert torch.equal(found.indices, expected.indices)


def test_kept_shares_serve_training_after_inference():
    q = random(1, 7, 5, 4)
    routing._kept_shares.cache_clear()
    with torch.inference_mode():
        route_maps(q, q, 2, 3)
    route_maps(q.requires_grad_(), q, 2, 3, differentiable=True).affinity[0, 0, 0].backward()
    assert q.grad.abs().max() > 0
    assert routing._kept_shares.cache_info().hits


def test_nothing_of_a_recorded_program_is_kept():
    routing._kept_shares.cache_clear()
    with FakeTensorMode():
        q = torch.empty(1, 7, 5, 4)
        route_maps(q, q, 2, 3)
    assert not routing._kept_shares.cache_info().currsize


def test_the_affinity_is_rounded_by_no_setting():
    # Products of float32 may be rounded to TF32 or bfloat16, as a user allows; those of float64
    # are not, and agree to the last bits.
    q, k = random(2, 1, 32, 32, 128, dtype=torch.float32)
    affinity = route_maps(q, k, 4, 16).affinity
    exact = region_means(q, 16).double() @ region_means(k, 16).double().transpose(1, 2)
    assert (affinity - exact).abs().max() <= 1e-14 * exact.abs().max()
