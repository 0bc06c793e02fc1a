"""Bi-level routing attention against the paper's sentences and plain loops."""

import copy

import numpy as np
import pooling_loops
import pytest
import torch
import torch.nn.functional as F
from layer_loops import linear, local_context, randomise
from loops import SIZES, attend, pad, route
from torch._dynamo.testing import CompileCounterWithBackend

from mmbiformer.benchmark.measure import count_saved_bytes
from mmbiformer.layers import BiLevelRoutingAttention, ChannelsFirstRoutingAttention
from mmbiformer.layers.routing_attention import OFFICIAL_NAMES

each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)
each_backend = pytest.mark.parametrize('backend', ['reference', 'chunked'])


@each_backend
@pytest.mark.parametrize('padding', ['official', 'masked'])
@each_size
def test_routed_attention_equals_loops(height, width, s, padding, backend):
    dim, num_heads, topk = 8, 2, min(2, s * s)
    module = randomise(BiLevelRoutingAttention(dim, num_heads, s, topk, padding, backend))
    x = torch.randn(2, height, width, dim, dtype=torch.float64)
    with torch.no_grad():
        out = module(x)
    assert out.shape == x.shape
    for image, result in zip(x.numpy(), out.numpy(), strict=True):
        if padding == 'official':
            # Zeros before the projection; after it, padding is like any other token.
            image = pad(image, s, 0)
        real = image.shape[:2]
        q, k, v = np.split(linear(module.qkv, image), 3, axis=-1)
        context = local_context(module.lce, v)
        q, k, v = (pad(part, s, 7) for part in (q, k, v))
        chosen = route(q, k, s, topk, real)
        attended = attend(q, k, v, chosen, s, num_heads, dim**-0.5, real)
        expected = linear(module.proj, attended[: real[0], : real[1]] + context)
        np.testing.assert_allclose(result, expected[:height, :width], rtol=0, atol=1e-12)


@each_backend
@each_size
def test_official_padding_is_a_zero_padded_input(height, width, s, backend):
    module = randomise(BiLevelRoutingAttention(8, 2, s, min(2, s * s), backend=backend))
    x = torch.randn(2, height, width, 8, dtype=torch.float64, requires_grad=True)
    padded = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
    grad_out = torch.randn_like(x)

    out = module(x)
    expected = module(padded)[:, :height, :width]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    variables = [x, *module.parameters()]
    for grad, truth in zip(
        torch.autograd.grad(out, variables, grad_out),
        torch.autograd.grad(expected, variables, grad_out),
        strict=True,
    ):
        torch.testing.assert_close(grad, truth, rtol=0, atol=1e-11)


def test_the_two_paddings_differ_only_where_there_is_padding():
    official = randomise(BiLevelRoutingAttention(8, 2, 4, 2, 'official'))
    masked = randomise(BiLevelRoutingAttention(8, 2, 4, 2, 'masked'))
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(official(x), masked(x), rtol=0, atol=1e-13)
    assert not torch.allclose(official(x[:, :7]), masked(x[:, :7]))


def test_qkv_bias_moves_masked_attention_as_padding_would_not():
    # A constant added to all keys changes no softmax, so only real padding would show it.
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 9, 'masked'))
    x = torch.randn(1, 4, 4, 8, dtype=torch.float64)
    out = module(x)
    with torch.no_grad():
        module.qkv.bias[8:16] += 1
    torch.testing.assert_close(module(x), out, rtol=0, atol=1e-12)
    module.padding = 'official'
    assert not torch.allclose(module(x), out)


def test_softmax_scale_is_over_the_whole_width():
    assert BiLevelRoutingAttention(64, 2, 7, 1).scale == 64**-0.5


@pytest.mark.parametrize('padding', ['official', 'masked'])
def test_other_sizes_compile_without_a_break(padding):
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 2, padding, 'chunked'))
    torch._dynamo.reset()
    compiled = torch.compile(module, backend='aot_eager', fullgraph=True)
    for height, width in [(6, 9), (7, 8), (4, 13)]:
        x = torch.randn(2, height, width, 8, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=1e-11)


def test_inductor_makes_one_program_for_all_sizes():
    module = BiLevelRoutingAttention(32, 1, 3, 2)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('inductor')
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    sizes = [(6, 9), (7, 9), (6, 10), (7, 10), (8, 11), (9, 8), (12, 12), (5, 7), (10, 6), (15, 4)]
    for size in sizes:
        x = torch.randn(2, *size, 32, requires_grad=True)
        results = []
        for function in (compiled, module):
            out = function(x)
            variables = x, *module.parameters()
            results.append((out, *torch.autograd.grad(out.square().sum(), variables)))
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    # A first attempt that met a number which must be constant is counted, too.
    assert 1 <= counter.frame_count <= 2


OPTIONS = {
    'narrow queries and keys': dict(qk_dim=4),
    'own scale': dict(scale=0.5),
    '3 x 3 LCE': dict(lce_kernel=3),
    'no LCE': dict(lce_kernel=None),
    'no output projection': dict(output_projection=False),
    'soft routing': dict(routing='soft'),
    'straight-through routing': dict(routing='straight_through'),
    'parametric routing': dict(routing='soft', parametric_routing=True),
    'mean of regions': dict(pooling=dict(type='AdaptiveAvg', side=2)),
    'maximum of regions': dict(pooling=dict(type='AdaptiveMax', side=2)),
    'strided mean': dict(pooling=dict(type='Avg', ratio=2)),
    'strided maximum': dict(pooling=dict(type='Max', ratio=2)),
    'fractional pooling': dict(pooling=dict(type='Fractional', side=2)),
    'learned pooling': dict(pooling=dict(type='Learned', ratio=2)),
    'much of it': dict(
        qk_dim=12,
        lce_kernel=3,
        routing='straight_through',
        parametric_routing=True,
        pooling=dict(type='Fractional', side=2),
    ),
}
each_option = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)


def pool_loop(module: BiLevelRoutingAttention, options: dict, kind: str):
    """The loop that pools a region (h, w, C) of keys or values to tokens."""
    size = dict(options.get('pooling', {}))
    match size.pop('type', None):
        case None:
            return lambda region: list(region.reshape(-1, region.shape[2]))
        case 'Fractional':
            return lambda region: pooling_loops.fractional(region, draw=0.5, **size)
        case 'Learned':
            conv = getattr(module.pool, f'pool_{kind}')
            weight, bias = conv.weight[:, 0].detach().numpy(), conv.bias.detach().numpy()
            return lambda region: pooling_loops.learned(region, weight, bias)
        case name:
            reduce = np.mean if name.endswith('Avg') else np.max
            loop = pooling_loops.adaptive if 'side' in size else pooling_loops.strided
            return lambda region: loop(region, *size.values(), lambda x: reduce(x, axis=0))


def attend_in_loops(module: BiLevelRoutingAttention, options: dict, image: np.ndarray):
    """The module's output of an image (H, W, C) in loops over regions and tokens."""
    s, heads = module.partition_factor, module.num_heads
    height, width, _ = image.shape
    image = pad(image, s, 0)
    q, k, v = np.split(linear(module.qkv, image), np.cumsum(module.widths)[:2], axis=-1)
    h, w = image.shape[0] // s, image.shape[1] // s
    regions = [
        (slice(row * h, (row + 1) * h), slice(column * w, (column + 1) * w))
        for row in range(s)
        for column in range(s)
    ]
    means = [(q[x].mean(axis=(0, 1)), k[x].mean(axis=(0, 1))) for x in regions]
    if module.router is not None:
        means = [tuple(linear(module.router, x) for x in pair) for pair in means]
    pooled = [
        (pool_loop(module, options, 'keys')(k[x]), pool_loop(module, options, 'values')(v[x]))
        for x in regions
    ]
    out = np.zeros((*image.shape[:2], v.shape[2]))
    for number, region in enumerate(regions):
        affinities = np.array([module.scale * (means[number][0] @ key) for _, key in means])
        chosen = np.argsort(-affinities)[: module.topk]
        weights = np.ones(len(chosen))
        if options.get('routing') == 'soft':
            weights = np.exp(affinities[chosen]) / np.exp(affinities[chosen]).sum()
        keys, values = (
            np.array([f * x for f, j in zip(weights, chosen, strict=True) for x in pooled[j][i]])
            for i in range(2)
        )
        for y, x in np.ndindex(h, w):
            parts = []
            for query, key, value in zip(
                np.split(q[region][y, x], heads),
                np.split(keys, heads, axis=1),
                np.split(values, heads, axis=1),
                strict=True,
            ):
                scores = np.exp(module.scale * key @ query)
                parts.append(scores / scores.sum() @ value)
            out[region][y, x] = np.concatenate(parts)
    if module.lce is not None:
        out += local_context(module.lce, v)
    if options.get('output_projection', True):
        out = linear(module.proj, out)
    return out[:height, :width]


@each_backend
@each_option
@pytest.mark.parametrize(('height', 'width'), [(8, 12), (7, 10), (3, 9)])
def test_options_equal_loops(height, width, options, backend):
    module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, backend=backend, **options)).eval()
    x = torch.randn(2, height, width, 8, dtype=torch.float64)
    with torch.no_grad():
        out = module(x)
    for image, result in zip(x.numpy(), out.numpy(), strict=True):
        expected = attend_in_loops(module, options, image)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@each_option
def test_gradients_of_options(options):
    """Of everything, against the plain backend, which PyTorch differentiates."""
    grads = []
    for backend in ('reference', 'chunked'):
        module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, backend=backend, **options)).eval()
        torch.manual_seed(1)
        x = torch.randn(2, 7, 10, 8, dtype=torch.float64, requires_grad=True)
        loss = (module(x) * torch.randn_like(x)).sum()
        grads.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for grad, expected in zip(*grads, strict=True):
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-11)
        assert grad.count_nonzero()


def test_straight_through_computes_as_hard_and_learns_as_soft():
    """Its gradient is the hard one, and that of weights 1 as if they were the softmax."""
    modules = {
        routing: randomise(BiLevelRoutingAttention(8, 2, 3, 4, routing=routing))
        for routing in ('hard', 'straight_through')
    }
    x = torch.randn(1, 7, 8, 8, dtype=torch.float64, requires_grad=True)
    grad_out = torch.randn_like(x)
    hard, through = (module(x) for module in modules.values())
    assert torch.equal(hard, through)
    hard_grad, grad = (torch.autograd.grad(out, x, grad_out)[0] for out in (hard, through))

    soft = copy.deepcopy(modules['straight_through'])
    soft.routing = 'soft'
    routing, _ = soft.attention_arguments(*soft.qkv(x).chunk(3, dim=-1))
    weights = soft._routing_weights(routing)
    ones = torch.ones_like(weights).requires_grad_()
    soft._routing_weights = lambda routing: ones
    grad_weights = torch.autograd.grad(soft(x.detach()), ones, grad_out)
    (by_weights,) = torch.autograd.grad(weights, x, grad_weights)
    assert by_weights.abs().max() > 1e-3
    torch.testing.assert_close(grad, hard_grad + by_weights, rtol=0, atol=1e-12)


@each_option
@pytest.mark.parametrize('size', [(1, 1), (2, 5), (13, 7)])
def test_any_size_and_autocast(options, size):
    # All regions are chosen: bfloat16 may choose others, and change a whole region.
    module = BiLevelRoutingAttention(8, 2, 7, 49, **options).eval()
    x = torch.randn(2, *size, 8)
    with torch.no_grad():
        out = module(x)
        assert out.shape == x.shape
        with torch.autocast('cpu', torch.bfloat16):
            assert (module(x).float() - out).abs().max() < 0.05


@each_option
def test_options_export(options):
    """For any size, but with fractional pooling, whose kernel becomes a part of the program."""
    module = randomise(BiLevelRoutingAttention(8, 2, 4, 3, **options)).eval()
    x = torch.randn(2, 23, 34, 8, dtype=torch.float64)
    shapes, others = None, [x]
    if options.get('pooling', {}).get('type') != 'Fractional':
        shapes = (dict.fromkeys(range(3), torch.export.Dim.AUTO),)
        others.append(torch.randn(3, 18, 50, 8, dtype=torch.float64))
    with torch.no_grad():
        program = torch.export.export(module, (x,), dynamic_shapes=shapes).module()
        for x in others:
            torch.testing.assert_close(program(x), module(x), rtol=0, atol=1e-11)


@each_option
def test_options_compile_without_a_break(options):
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 2, backend='chunked', **options)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(module, backend='aot_eager', fullgraph=True)
    for size in [(6, 9), (7, 8)]:
        x = torch.randn(2, *size, 8, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    'options', [OPTIONS['much of it'], OPTIONS['soft routing']], ids=['pooled', 'soft']
)
def test_no_gathered_copy_is_kept(options):
    """What is kept for the backward pass does not grow with the number of regions gathered."""
    x = torch.randn(1, 32, 32, 8, requires_grad=True)
    kept = {}
    for topk in (2, 16):
        module = BiLevelRoutingAttention(8, 2, 4, topk, **options)
        with count_saved_bytes(module.parameters()) as saved:
            out = module(x)
            kept[topk] = saved()
        del out
    # What is routed to, and its weights: a gathered copy would be 30 times the map.
    assert kept[16] - kept[2] < x.nbytes / 4


def test_channels_first_is_the_same_on_other_layouts():
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 2))
    other = ChannelsFirstRoutingAttention(8, 2, 3, 2).double()
    other.load_state_dict(module.state_dict())
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    expected = module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.equal(other(x), expected)


def test_official_names_load_within_a_model():
    options = dict(routing='soft', parametric_routing=True)
    source, target = (
        torch.nn.Sequential(randomise(BiLevelRoutingAttention(8, 2, 3, 2, **options)))
        for _ in range(2)
    )
    torch.nn.init.zeros_(target[0].router.weight)
    ours = {new: old for old, new in OFFICIAL_NAMES.items()}
    official = {}
    for name, value in source.state_dict().items():
        _, layer, kind = name.split('.')
        official[f'0.{ours[layer]}.{kind}'] = value
    assert '0.qkv.qkv.bias' in official
    target.load_state_dict(official)
    assert torch.equal(target[0].router.weight, source[0].router.weight)


WRONG = {
    'heads': (dict(num_heads=3), r'num_heads=3 does not divide dim=8: choose a divisor'),
    'heads of queries': (dict(qk_dim=5), r'num_heads=2 does not divide qk_dim=5: choose'),
    'topk': (dict(topk=10), r'topk=10 must be from 1 to the 9 regions of partition_factor=3'),
    'even kernel': (dict(lce_kernel=4), r'lce_kernel=4 must be odd, or None for no LCE'),
    'routing': (dict(routing='harder'), r"routing='harder' is unknown: choose from hard, soft"),
    'router': (dict(parametric_routing=True), r"parametric_routing needs routing='soft'"),
    'router of one region': (
        dict(parametric_routing=True, routing='soft', topk=1),
        r'parametric_routing needs .* topk=2 or more: else',
    ),
    'padding': (dict(padding='offical'), r"padding='offical' is unknown: choose from official, m"),
    'backend': (dict(backend='tritn'), r"backend='tritn' is unknown: choose from auto, referen"),
    'no heads': (dict(num_heads=0), r'num_heads=0 must be an integer from 1 on'),
    'half a region': (dict(topk=2.5), r'topk=2.5 must be an integer from 1 on'),
    'negative S': (dict(partition_factor=-3), r'partition_factor=-3 must be an integer from 1'),
    'no width': (dict(qk_dim=0), r'qk_dim=0 must be an integer from 1 on'),
    'negative kernel': (dict(lce_kernel=-3), r'lce_kernel=-3 must be an integer from 1 on'),
    'pooling': (dict(pooling='Avg'), r"pooling='Avg' must be a dict with 'type', one of"),
    'pads': (
        dict(padding='masked', pooling=dict(type='Avg', ratio=2)),
        r"pooling needs padding='official', not 'masked'",
    ),
}


@pytest.mark.parametrize(('change', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_options_are_named(change, message):
    arguments = dict(dim=8, num_heads=2, partition_factor=3, topk=2)
    with pytest.raises(ValueError, match=message):
        BiLevelRoutingAttention(**{**arguments, **change})
