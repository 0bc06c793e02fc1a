"""Shapes that nobody thought of: the chunked backend equals the plain one on all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite, integers

from mmbiformer.ops import chunked, routed_attention, routing_indices
from mmbiformer.ops.routing import region_means


@composite
def cases(draw) -> dict:
    """Any map, S, K, heads and padding; any regions, even twice the same; chunks of any size."""
    s = draw(integers(1, 5))
    heads, dim = draw(integers(1, 3)), draw(integers(1, 9))
    shape = draw(integers(1, 3)), draw(integers(1, 13)), draw(integers(1, 13)), heads * dim
    generator = torch.Generator().manual_seed(draw(integers(0, 1000)))
    q, k, v, grad = torch.randn(4, *shape, generator=generator, dtype=torch.float64).unbind()
    pads = torch.randn(2, heads * dim, generator=generator, dtype=torch.float64).unbind()
    topk = draw(integers(1, s * s))
    indices = torch.randint(s * s, (shape[0], s * s, topk), generator=generator)
    if draw(st.booleans()):  # masked padding: a softmax needs something real, as region 0 has
        pads = None, None
        indices[..., draw(integers(0, topk - 1))] = 0
    settings = dict(partition_factor=s, num_heads=heads, scale=draw(st.floats(0.01, 2)))
    budget = draw(st.sampled_from([1, 5000, 1 << 20]))
    return dict(tensors=(q, k, v, *pads), indices=indices, grad=grad, budget=budget, **settings)


def results(tensors, indices, grad, backend, **options) -> list[torch.Tensor]:
    """Output and all gradients."""
    q, k, v, *pads = (x if x is None else x.clone().requires_grad_() for x in tensors)
    out = routed_attention(
        *(q, k, v, indices), pad_key=pads[0], pad_value=pads[1], backend=backend, **options
    )
    variables = [x for x in (q, k, v, *pads) if x is not None]
    grads = torch.autograd.grad(out, variables, grad, allow_unused=True, materialize_grads=True)
    return [out.detach(), *grads]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_chunked_equals_reference(case):
    budget = case.pop('budget')
    expected = results(backend='reference', **case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, 'CPU_BYTES_PER_THREAD', budget)
        own = results(backend='chunked', **case)
    for result, truth in zip(own, expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-10, atol=1e-11)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_routing_takes_the_regions_of_highest_affinity(case):
    q, k, _, pad_query, pad_key = case['tensors']
    s, topk = case['partition_factor'], case['indices'].shape[-1]
    indices = routing_indices(q, k, topk, s, pad_query, pad_key)
    query, key = region_means(q, s, pad_query), region_means(k, s, pad_key)
    affinity = query @ key.transpose(1, 2)
    if pad_key is None:  # regions of padding alone come last
        real = region_means(torch.ones_like(q), s)[0, :, 0] > 0
        affinity[..., ~real] = float('-inf')
    taken = affinity.gather(2, indices).sort(-1).values
    torch.testing.assert_close(taken, affinity.topk(topk).values.sort(-1).values)
