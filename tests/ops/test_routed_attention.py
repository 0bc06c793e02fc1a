"""The op against loops over tokens, and its backends against each other."""

import pytest
import torch
from loops import SIZES, attend, pad
from torch.autograd import gradcheck

from mmbiformer.ops import routed_attention, routing_indices

FAST = ['chunked']  # the fused one has a file of its own
SCALE = 0.3
each_backend = pytest.mark.parametrize('backend', ['reference', *FAST])
each_padding = pytest.mark.parametrize('padding', ['official', 'masked'])
each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)


def make_inputs(height, width, s, topk, padding, *, batch=2, channels=8, dtype=torch.float64):
    """q, k, v, and pad_key, pad_value where padding takes part; and the routing indices."""
    generator = torch.Generator().manual_seed(height * 100 + width)
    shapes = [(batch, height, width, channels)] * 3
    if padding == 'official':
        shapes += [(channels,)] * 2
    tensors = [torch.randn(x, generator=generator, dtype=torch.float64).to(dtype) for x in shapes]
    pads = (torch.zeros(channels, dtype=dtype), tensors[3]) if padding == 'official' else ()
    return tensors, routing_indices(*tensors[:2], topk, s, *pads)


def run(tensors, indices, s, num_heads, backend, *, grad_out=None):
    """The output, and with ``grad_out`` also the gradients of all tensors."""
    tensors = [x.clone().requires_grad_(grad_out is not None) for x in tensors]
    pads = dict(zip(('pad_key', 'pad_value'), tensors[3:], strict=False))
    out = routed_attention(
        *tensors[:3],
        indices,
        partition_factor=s,
        num_heads=num_heads,
        scale=SCALE,
        backend=backend,
        **pads,
    )
    if grad_out is None:
        return [out]
    grads = torch.autograd.grad(out, tensors, grad_out, allow_unused=True)
    return [
        out.detach(),
        *(torch.zeros_like(x) if g is None else g for x, g in zip(tensors, grads, strict=True)),
    ]


def relative_errors(tensors, expected):
    return [
        ((x.double() - y).norm() / (y.norm() + 1e-300)).item()
        for x, y in zip(tensors, expected, strict=True)
    ]


@each_backend
@each_padding
@each_size
def test_equals_loops_over_tokens(height, width, s, padding, backend):
    topk = min(2, s * s)
    tensors, indices = make_inputs(height, width, s, topk, padding)
    (out,) = run(tensors, indices, s, 2, backend)
    assert out.shape == tensors[0].shape
    for image in range(2):
        q, k, v = (x[image].numpy() for x in tensors[:3])
        pad_key, pad_value = (x.numpy() for x in tensors[3:]) if padding == 'official' else [7, 7]
        q, k, v = pad(q, s, 0), pad(k, s, pad_key), pad(v, s, pad_value)
        real = q.shape[:2] if padding == 'official' else (height, width)
        chosen = [set(row.tolist()) for row in indices[image]]
        expected = attend(q, k, v, chosen, s, 2, SCALE, real)[:height, :width]
        torch.testing.assert_close(out[image], torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize('backend', FAST)
@each_padding
@pytest.mark.parametrize('num_heads', [1, 4], ids='{}heads'.format)
@pytest.mark.parametrize('topk', [1, 3, 'all'], ids='top-{}'.format)
@each_size
def test_fast_backend_equals_reference(height, width, s, topk, num_heads, padding, backend):
    topk = s * s if topk == 'all' else min(topk, s * s)
    tensors, indices = make_inputs(height, width, s, topk, padding)
    grad_out = torch.randn_like(tensors[0])
    expected = run(tensors, indices, s, num_heads, 'reference', grad_out=grad_out)
    results = run(tensors, indices, s, num_heads, backend, grad_out=grad_out)
    assert len(results) == 1 + len(tensors)
    for result, truth in zip(results, expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize('backend', FAST)
def test_a_region_chosen_by_all_and_one_chosen_by_none(backend):
    tensors, _ = make_inputs(6, 6, 3, 1, 'masked', batch=1)
    indices = torch.full((1, 9, 1), 4)
    grad_out = torch.randn_like(tensors[0])
    expected = run(tensors, indices, 3, 2, 'reference', grad_out=grad_out)
    results = run(tensors, indices, 3, 2, backend, grad_out=grad_out)
    for result, truth in zip(results, expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-12)
    grad_value = results[3]
    assert grad_value[:, 2:4, 2:4].abs().min() > 0
    assert grad_value[:, :2].abs().max() == 0


@each_backend
@each_padding
def test_gradcheck(padding, backend):
    tensors, indices = make_inputs(3, 2, 2, 2, padding, batch=1, channels=4)
    tensors = [x.requires_grad_() for x in tensors]
    assert gradcheck(
        lambda *tensors: routed_attention(
            *tensors[:3],
            indices,
            partition_factor=2,
            num_heads=2,
            scale=SCALE,
            backend=backend,
            **dict(zip(('pad_key', 'pad_value'), tensors[3:], strict=False)),
        ),
        tensors,
    )


@pytest.mark.parametrize('backend', FAST)
@each_padding
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    'size', [(13, 18, 4, 4), (9, 9, 8, 16)], ids=['partial', 'mostly padding']
)
def test_error_is_at_most_twice_the_references(size, dtype, padding, backend):
    tensors, indices = make_inputs(*size, padding, channels=64, dtype=dtype)
    grad_out = torch.randn_like(tensors[0])
    exact = [x.double() for x in tensors]
    truth = run(exact, indices, size[2], 2, 'reference', grad_out=grad_out.double())
    plain = run(tensors, indices, size[2], 2, 'reference', grad_out=grad_out)
    results = run(tensors, indices, size[2], 2, backend, grad_out=grad_out)
    assert all(result.dtype == dtype for result in results)
    errors = relative_errors(results, truth)
    bounds = [2 * error for error in relative_errors(plain, truth)]
    assert min(bounds) > 0
    assert all(error <= bound for error, bound in zip(errors, bounds, strict=True)), errors


@each_backend
@each_padding
def test_repeats_bitwise(padding, backend):
    tensors, indices = make_inputs(13, 18, 4, 4, padding, channels=64, dtype=torch.float32)
    grad_out = torch.randn_like(tensors[0])
    first = run(tensors, indices, 4, 2, backend, grad_out=grad_out)
    for _ in range(3):
        again = run(tensors, indices, 4, 2, backend, grad_out=grad_out)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@each_backend
def test_non_contiguous_maps(backend):
    tensors, indices = make_inputs(7, 5, 3, 2, 'official')
    packed = torch.cat(tensors[:3], dim=-1).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    views = [*packed.chunk(3, dim=-1), *tensors[3:]]
    assert not views[0].is_contiguous()
    pads = dict(zip(('pad_key', 'pad_value'), views[3:], strict=True))
    settings = dict(partition_factor=3, num_heads=2, scale=SCALE, backend=backend)
    out = routed_attention(*views[:3], indices, **settings, **pads)
    torch.testing.assert_close(out, run(tensors, indices, 3, 2, backend)[0], rtol=0, atol=1e-13)


WRONG = {
    'backend': (dict(backend='cuda'), r"backend 'cuda' is unknown: choose from auto, referen"),
    'key shape': (dict(k=torch.rand(1, 4, 5, 8)), r'q, k and v .*\(1, 4, 4, 8\), \(1, 4, 5, 8\)'),
    'no map': (dict.fromkeys('qkv', torch.rand(1, 16, 8)), r'shape \(B, H, W, C\), got \(1, 16'),
    'indices of another S': (
        dict(partition_factor=3),
        r'indices must have shape .* \(1, 9, K\) for partition_factor=3, got \(1, 4, 2\)',
    ),
    'indices without K': (dict(indices=torch.zeros(1, 4).long()), r'indices .* got \(1, 4\)'),
    'heads': (dict(num_heads=3), r'num_heads=3 does not divide the 8 channels'),
    'pad shape': (
        dict(pad_key=torch.rand(2), pad_value=torch.rand(2)),
        r'pad_key and pad_value must have shape \(C, \) = \(8,\), got \(2,\) and \(2,\)',
    ),
    'dtypes': (dict(v=torch.rand(1, 4, 4, 8).half()), r'one dtype and device, got torch.float32 '),
    'int32 indices': (dict(indices=torch.zeros(1, 4, 2).int()), r'indices must be int64, got '),
    'S of 0': (dict(partition_factor=0), r'partition_factor=0 must be at least 1'),
    'one pad': (dict(pad_key=torch.rand(8)), r'pad_key and pad_value .*: give both or none'),
}


@pytest.mark.parametrize(('change', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(change, message):
    q = torch.rand(1, 4, 4, 8)
    indices = torch.zeros(1, 4, 2, dtype=torch.int64)
    arguments = dict(q=q, k=q, v=q, indices=indices, partition_factor=2, num_heads=2, scale=1.0)
    assert routed_attention(**arguments).shape == q.shape
    with pytest.raises(ValueError, match=message):
        routed_attention(**{**arguments, **change})


@each_backend
def test_no_samples(backend):
    tensors, indices = make_inputs(5, 6, 2, 2, 'official', batch=0)
    out, *grads = run(tensors, indices, 2, 2, backend, grad_out=torch.empty(0, 5, 6, 8).double())
    assert out.shape == (0, 5, 6, 8)
    assert grads[3].abs().sum() == 0


@each_backend
def test_autocast_decides_the_dtype(backend):
    tensors, indices = make_inputs(5, 6, 2, 2, 'official', dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        (out,) = run(tensors, indices, 2, 2, backend)
        assert out.dtype == torch.bfloat16
        (out,) = run([x.double() for x in tensors], indices, 2, 2, backend)
        assert out.dtype == torch.float64
