"""Shapes that nobody thought of: the chunked backend, at any chunk size, equals the plain one."""

import pytest
import torch
from attention_cases import Arguments, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite, integers

from mmbiformer.ops import chunked, routing_indices
from mmbiformer.ops.routing import region_means


@composite
def arguments_of_any_shape(draw) -> Arguments:
    """Any map, S, K, heads and padding; any regions, even twice the same."""
    s = draw(integers(1, 5))
    heads, dim = draw(integers(1, 3)), draw(integers(1, 9))
    shape = draw(integers(1, 3)), draw(integers(1, 13)), draw(integers(1, 13)), heads * dim
    generator = torch.Generator().manual_seed(draw(integers(0, 1000)))
    q, k, v, grad_out = torch.randn(4, *shape, generator=generator, dtype=torch.float64).unbind()
    tensors = dict(q=q, k=k, v=v)
    topk = draw(integers(1, s * s))
    indices = torch.randint(s * s, (shape[0], s * s, topk), generator=generator)
    if draw(st.booleans()):
        pads = torch.randn(2, heads * dim, generator=generator, dtype=torch.float64)
        tensors.update(pad_key=pads[0], pad_value=pads[1])
    else:  # masked padding: a softmax needs something real, as region 0 has
        indices[..., draw(integers(0, topk - 1))] = 0
    settings = dict(partition_factor=s, num_heads=heads, scale=draw(st.floats(0.01, 2)))
    return Arguments(tensors, indices, grad_out, settings)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(arguments_of_any_shape(), st.sampled_from([1, 5000, 1 << 20]))
def test_chunked_equals_reference(arguments, bytes_per_thread):
    expected = run(arguments, 'reference')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, 'CPU_BYTES_PER_THREAD', bytes_per_thread)
        results = run(arguments, 'chunked')
    for name, truth in expected.items():
        torch.testing.assert_close(results[name], truth, rtol=1e-10, atol=1e-11)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arguments_of_any_shape())
def test_routing_takes_the_regions_of_highest_affinity(arguments):
    q, k = arguments.tensors['q'], arguments.tensors['k']
    # Any two vectors will do as the query and the key of padding.
    pad_query, pad_key = (arguments.tensors.get(name) for name in ('pad_key', 'pad_value'))
    s, topk = arguments.settings['partition_factor'], arguments.indices.shape[-1]
    indices = routing_indices(q, k, topk, s, pad_query, pad_key)
    query, key = region_means(q, s, pad_query), region_means(k, s, pad_key)
    affinity = query @ key.transpose(1, 2)
    if pad_key is None:  # regions of padding alone come last
        real = region_means(torch.ones_like(q), s)[0, :, 0] > 0
        affinity[..., ~real] = float('-inf')
    taken = affinity.gather(2, indices).sort(-1).values
    torch.testing.assert_close(taken, affinity.topk(topk).values.sort(-1).values)
