"""The op against loops over tokens, and its backends against the plain one."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from attention_cases import (
    HALVES,
    SCALE,
    Arguments,
    Case,
    assert_as_exact_as_reference,
    each_case,
    each_padding,
    forward,
    make_inputs,
    run,
)
from loops import SIZES, attend, pad
from torch.autograd import gradcheck

from mmbiformer.ops import routed_attention

each_on_cpu = pytest.mark.parametrize('backend', ['reference', 'chunked'])
each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)

EVERY_SIZE = {
    f'{name}-top-{topk}-{heads}heads': Case(
        *(height, width, s),
        topk=s * s if topk == 'all' else min(topk, s * s),
        num_heads=heads,
        head_dim=8 // heads,
    )
    for (name, (height, width, s)), topk, heads in product(SIZES.items(), [1, 3, 'all'], [1, 4])
}
LARGER = {
    'partial': Case(13, 18, 4, topk=4, head_dim=32),
    'mostly padding': Case(9, 9, 8, topk=16, head_dim=32),
}
# Small enough for Triton's interpreter.
SMALL = {
    'divisible': Case(8, 4, 2, topk=2, batch=1, head_dim=16),
    'partial regions': Case(7, 5, 3, topk=2, head_dim=16),
    'padding regions': Case(9, 5, 4, topk=3, batch=1, num_heads=1, head_dim=32),
    'one region': Case(3, 5, 1, topk=1, batch=1, head_dim=16),
    'one row, top-1': Case(1, 7, 3, topk=1, num_heads=1, head_dim=16),
    'smaller than S x S, all': Case(2, 3, 5, topk=25, batch=1, num_heads=1, head_dim=16),
    'one token': Case(1, 1, 3, topk=1, batch=1, num_heads=1, head_dim=64),
    'several tiles, all': Case(9, 14, 2, topk=4, batch=1, num_heads=1, head_dim=32),
}
# Of heads that C++ takes.
WIDE = {name: replace(case, head_dim=16 * case.num_heads) for name, case in EVERY_SIZE.items()}


def some(*names: str) -> dict[str, Case]:
    return {name: SMALL[name] for name in names}


@each_on_cpu
@each_padding
@each_size
def test_equals_loops_over_tokens(height, width, s, padding, backend):
    arguments = make_inputs(Case(height, width, s, topk=min(2, s * s), padding=padding))
    out = forward(arguments, backend)
    assert out.shape == arguments.tensors['q'].shape
    for image in range(2):
        q, k, v = (arguments.tensors[name][image].numpy() for name in 'qkv')
        pads = [7, 7]
        if padding == 'official':
            pads = [arguments.tensors[name].numpy() for name in ('pad_key', 'pad_value')]
        q, k, v = pad(q, s, 0), pad(k, s, pads[0]), pad(v, s, pads[1])
        real = q.shape[:2] if padding == 'official' else (height, width)
        chosen = [set(regions.tolist()) for regions in arguments.indices[image]]
        expected = attend(q, k, v, chosen, s, 2, SCALE, real)[:height, :width]
        torch.testing.assert_close(out[image], torch.from_numpy(expected), rtol=0, atol=1e-12)


@each_case(
    ('chunked', EVERY_SIZE, [torch.float64]),
    ('chunked', LARGER, [torch.float32, *HALVES]),
    ('cpp', {**WIDE, **LARGER, **SMALL}, [torch.float32, torch.bfloat16]),
    ('triton', SMALL, [torch.float32]),
    ('triton', some('partial regions', 'several tiles, all', 'one token'), HALVES),
)
def test_output_and_gradients(backend, case):
    assert_as_exact_as_reference(make_inputs(case, backend), backend)


PLUGGED_IN = {
    'pooled keys': replace(LARGER['partial'], key_size=(6, 7)),
    'more keys than queries': Case(2, 3, 3, topk=4, head_dim=8, key_size=(9, 7)),
    'wider values': replace(LARGER['partial'], value_dim=48),
    # Of fewer channels the errors are those of a few numbers: 60 seeds gave up to 3.7 times.
    'narrower values': replace(LARGER['partial'], value_dim=8),
    'weighted': replace(LARGER['mostly padding'], is_weighted=True),
    'all of it': Case(
        *(13, 18, 4), topk=5, head_dim=8, key_size=(6, 8), value_dim=4, is_weighted=True
    ),
}
UNWEIGHTED = {name: PLUGGED_IN[name] for name in ('pooled keys', 'wider values')}
WITHOUT_PADDING = {'pooled keys': replace(LARGER['partial'], key_size=(8, 8))}


@each_case(
    ('chunked', PLUGGED_IN, [torch.float64, torch.float32, *HALVES]),
    ('chunked', WITHOUT_PADDING, [torch.float64]),
    ('cpp', UNWEIGHTED, [torch.float32, torch.bfloat16]),
)
def test_pooled_keys_other_widths_and_routing_weights(backend, case):
    results = assert_as_exact_as_reference(make_inputs(case, backend), backend)
    named = {name for name in results if not name.startswith('pad_')}  # some have no padding
    assert all(results[name].count_nonzero() for name in named)


NEARLY_ONE = some('partial regions', 'padding regions', 'smaller than S x S, all')


@each_case(
    ('chunked', NEARLY_ONE, [torch.float64]),
    ('cpp', NEARLY_ONE, [torch.float32, torch.bfloat16]),
    ('triton', NEARLY_ONE, [torch.float32, *HALVES]),
)
def test_weights_nearly_one(backend, case):
    """The gradients of scores are then smaller than what the output's rounding adds to them."""
    arguments = make_inputs(case, backend)
    arguments.tensors['q'] *= 10
    assert_as_exact_as_reference(arguments, backend)


PARTIAL = Case(7, 8, 4, topk=1, batch=3, num_heads=1, head_dim=16)


@each_case(
    ('chunked', {'divisible': replace(PARTIAL, height=8), 'partial': PARTIAL}, [torch.float64]),
    (
        'cpp',
        {'divisible': replace(PARTIAL, height=8), 'partial': PARTIAL},
        [torch.float32, torch.bfloat16],
    ),
    ('triton', {'partial': PARTIAL}, [torch.float32]),
)
def test_regions_chosen_by_all_by_some_and_by_none(backend, case):
    """Triton's kernels cut a list of who chose a region into pieces of 4, wherever it starts."""
    arguments = make_inputs(case, backend)
    times_chosen = {5: 16}, {1: 5, 2: 6, 6: 5}, {0: 4, 3: 1, 8: 8, 12: 3}  # by image and region
    for image, times in enumerate(times_chosen):
        chosen = [region for region, number in times.items() for _ in range(number)]
        arguments.indices[image, :, 0] = torch.tensor(chosen)
    grad_value = assert_as_exact_as_reference(arguments, backend)['v'][0]
    assert grad_value[2:4, 2:4].abs().min() > 0
    assert grad_value[:2].abs().max() == grad_value[4:].abs().max() == 0


@each_on_cpu
@each_padding
def test_gradcheck(padding, backend):
    case = Case(3, 2, 2, topk=2, batch=1, head_dim=2, padding=padding)
    assert_gradcheck(make_inputs(case), backend)


@each_on_cpu
@each_padding
def test_gradcheck_with_routing_weights(padding, backend):
    case = Case(3, 2, 2, topk=2, batch=1, head_dim=2, padding=padding, is_weighted=True)
    assert_gradcheck(make_inputs(replace(case, key_size=(2, 3), value_dim=3)), backend)


def assert_gradcheck(arguments: Arguments, backend: str) -> None:
    def output(*tensors: torch.Tensor) -> torch.Tensor:
        named = dict(zip(arguments.tensors, tensors, strict=True))
        return forward(replace(arguments, tensors=named), backend)

    assert gradcheck(output, [x.requires_grad_() for x in arguments.tensors.values()])


FEW_TOKENS = Case(6, 5, 3, topk=1, batch=1, num_heads=1, head_dim=16)


@each_case(
    ('reference', {'partial': LARGER['partial']}, [torch.float32]),
    ('chunked', {'partial': LARGER['partial']}, [torch.float32]),
    ('cpp', {'partial': LARGER['partial']}, [torch.float32, torch.bfloat16]),
    ('triton', {'few tokens': FEW_TOKENS}, [torch.bfloat16]),
)
def test_repeats_bitwise(backend, case):
    arguments = make_inputs(case, backend)
    arguments.indices[:, 1:, 0] = 4  # Its gradients are sums over many regions.
    first = run(arguments, backend)
    for _ in range(1 if backend == 'triton' else 3):
        again = run(arguments, backend)
        assert all(torch.equal(x, again[name]) for name, x in first.items())


@each_case(
    ('reference', some('partial regions'), [torch.float64]),
    ('chunked', some('partial regions'), [torch.float64]),
    ('cpp', some('partial regions'), [torch.float32, torch.bfloat16]),
    ('triton', {'few tokens': replace(FEW_TOKENS, topk=2)}, [torch.float32]),
    paddings=['official'],
)
def test_strides_do_not_matter(backend, case):
    packed = make_inputs(case, backend)
    assert not packed.tensors['q'].is_contiguous()
    packed.grad_out = packed.grad_out[:, :1, :1, :1].expand_as(packed.grad_out)

    def channels_apart(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=-1).movedim(-1, 0).contiguous()[::2].movedim(0, -1)

    expected = run(packed, backend)
    for place in (torch.Tensor.contiguous, channels_apart):
        tensors = {name: place(x) for name, x in packed.tensors.items()}
        others = Arguments(tensors, packed.indices, packed.grad_out.contiguous(), packed.settings)
        for name, x in run(others, backend).items():
            bound = 1e-13 if x.dtype == torch.float64 else 0
            torch.testing.assert_close(x, expected[name], rtol=0, atol=bound)


WRONG = {
    'backend': (dict(backend='cuda'), r"backend 'cuda' is unknown: choose from auto, referen"),
    'key shape': (dict(k=torch.rand(1, 4, 5, 8)), r'q, k and v .*\(1, 4, 4, 8\), \(1, 4, 5, 8\)'),
    'key width': (dict(k=torch.rand(1, 4, 4, 6)), r'q and k of one width, .*, \(1, 4, 4, 6\)'),
    'no map': (dict.fromkeys('qkv', torch.rand(1, 16, 8)), r'maps \(B, H, W, C\) .*got \(1, 16'),
    'indices of another S': (
        dict(partition_factor=3),
        r'indices must have shape .* \(1, 9, K\) for partition_factor=3, got \(1, 4, 2\)',
    ),
    'indices without K': (dict(indices=torch.zeros(1, 4).long()), r'indices .* got \(1, 4\)'),
    'heads': (dict(num_heads=3), r'num_heads=3 does not divide the 8 channels'),
    'pad shape': (
        dict(pad_key=torch.rand(2), pad_value=torch.rand(2)),
        r'pad_key and pad_value must have .*, \(8,\) and \(8,\), got \(2,\) and \(2,\)',
    ),
    'dtypes': (dict(v=torch.rand(1, 4, 4, 8).half()), r'one dtype and device, got torch.float32 '),
    'int32 indices': (dict(indices=torch.zeros(1, 4, 2).int()), r'indices must be int64, got '),
    'S of 0': (dict(partition_factor=0), r'partition_factor=0 must be at least 1'),
    'weights of another K': (
        dict(routing_weights=torch.rand(1, 4, 3)),
        r'routing_weights must have the shape of indices, \(1, 4, 2\), got \(1, 4, 3\)',
    ),
    'value heads': (dict(v=torch.rand(1, 4, 4, 9)), r'num_heads=2 does not divide the 9 channels'),
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


@each_on_cpu
def test_no_samples(backend):
    results = run(make_inputs(Case(5, 6, 2, topk=2, batch=0)), backend)
    assert results['out'].shape == (0, 5, 6, 8)
    assert results['pad_key'].abs().sum() == results['pad_value'].abs().sum() == 0


@each_on_cpu
def test_autocast_decides_the_dtype(backend):
    case = Case(5, 6, 2, topk=2, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        assert forward(make_inputs(case), backend).dtype == torch.bfloat16
        exact = make_inputs(replace(case, dtype=torch.float64))
        assert forward(exact, backend).dtype == torch.float64
