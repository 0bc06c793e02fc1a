"""The registered operators: autograd, autocast, compilers, exporters and counters take them."""

import pytest
import torch
from attention_cases import SCALE, Case, each_padding, make_inputs, needs_triton
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer.ops import backends, chunked, routed_attention

HEADS, S = 2, 3


def make_tensors(
    padding: str, dtype=torch.float32, *, size=(7, 8), head_dim=8, backend='chunked'
) -> list[torch.Tensor | None]:
    """q, k, v, indices, and the pads or None, in the order in which the operators take them."""
    case = Case(*size, S, topk=2, head_dim=head_dim, padding=padding, dtype=dtype)
    arguments = make_inputs(case, backend)
    q, k, v, *pads = arguments.tensors.values()
    return [q, k, v, arguments.indices, *(pads or [None, None])]


def wanting_gradients(tensors: list[torch.Tensor | None]) -> list[torch.Tensor]:
    return [x.requires_grad_() for x in tensors if x is not None and x.is_floating_point()]


def attend(q, k, v, indices, pad_key, pad_value, backend='chunked'):
    return routed_attention(
        *(q, k, v, indices),
        partition_factor=S,
        num_heads=HEADS,
        scale=SCALE,
        pad_key=pad_key,
        pad_value=pad_value,
        backend=backend,
    )


@needs_triton
@each_padding
def test_triton_through_the_operators(padding):
    """Registered as the chunked backend is: what differs is how much is kept for the backward."""
    tensors = make_tensors(padding, head_dim=16, backend='triton')
    variables = wanting_gradients(tensors)
    opcheck(
        torch.ops.mmbiformer.routed_attention.default, (*tensors, S, HEADS, SCALE, None, 'triton')
    )
    results = []
    for backend in ('triton', 'reference'):
        out = attend(*tensors, backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), variables)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


PLUGGED_IN = dict(key_size=(6, 4), value_dim=12, is_weighted=True)


@each_padding
@pytest.mark.parametrize('options', [{}, PLUGGED_IN], ids=['plain', 'plugged in'])
def test_opcheck(padding, options):
    case = Case(7, 8, S, topk=2, padding=padding, dtype=torch.float32, **options)
    arguments = make_inputs(case)
    tensors = {name: x.requires_grad_() for name, x in arguments.tensors.items()}

    def operands() -> tuple:
        maps = (tensors[name] for name in 'qkv')
        pads = tensors.get('pad_key'), tensors.get('pad_value')
        settings = arguments.settings.values()
        return (
            *maps,
            arguments.indices,
            *pads,
            *settings,
            tensors.get('routing_weights'),
            'chunked',
        )

    opcheck(torch.ops.mmbiformer.routed_attention.default, operands())
    tensors = {name: x.detach() for name, x in tensors.items()}
    op = torch.ops.mmbiformer.routed_attention_backward.default
    opcheck(op, (arguments.grad_out, None, None, *operands()))


@each_padding
def test_compiled_equals_eager(padding):
    tensors = make_tensors(padding)
    variables = wanting_gradients(tensors)

    def gradients(function):
        out = function(*tensors)
        return out, *torch.autograd.grad(out.square().sum(), variables)

    compiled = torch.compile(attend, backend='aot_eager', fullgraph=True)
    for result, expected in zip(gradients(compiled), gradients(attend), strict=True):
        assert torch.equal(result, expected)


@each_padding
def test_one_graph_serves_other_sizes(padding):
    compiled = torch.compile(attend, backend='aot_eager', fullgraph=True, dynamic=True)
    for size in [(7, 8), (9, 9), (4, 11)]:
        tensors = make_tensors(padding, size=size)
        assert torch.equal(compiled(*tensors), attend(*tensors))


# The first is like no other number: what is alike in it would be taken for the same number.
SIZES = [(7, 10), (6, 9), (7, 9), (6, 10), (8, 11), (9, 8), (4, 5), (5, 7), (10, 6), (7, 4)]


@each_padding
@pytest.mark.parametrize(
    'backend', ['auto', 'chunked', pytest.param('triton', marks=needs_triton)]
)
def test_ten_sizes_compile_once(monkeypatch, padding, backend):
    """Whatever of them is padded, at the bottom, on the right or both."""
    if backend == 'triton':  # its kernels take long in the interpreter, and know of no compiler

        def forward(inputs):
            kept = inputs.q.new_zeros(row.kept_shape(inputs), dtype=torch.float32)
            return chunked.forward(inputs)[0], kept

        def backward(grad_out, inputs, out, kept):
            return chunked.backward(grad_out, inputs, None, None)

        row = backends.BACKENDS['triton']
        changed = row._replace(forward=forward, backward=backward)
        monkeypatch.setitem(backends.BACKENDS, 'triton', changed)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(attend, backend=counter, fullgraph=True, dynamic=True)
    for size in SIZES:
        tensors = make_tensors(padding, size=size, head_dim=16)
        variables = wanting_gradients(tensors)
        results = []
        for function in (compiled, attend):
            out = function(*tensors, backend)
            results.append((out, *torch.autograd.grad(out.square().sum(), variables)))
        for result, expected in zip(*results, strict=True):
            assert torch.equal(result, expected)
    # A first attempt that met a number which must be constant is counted, too.
    assert 1 <= counter.frame_count <= 2


def test_gradients_are_given_only_to_what_wants_them():
    q, k, v, indices, *pads = make_tensors('official')
    (grad,) = torch.autograd.grad(attend(q, k, v.requires_grad_(), indices, *pads).sum(), [v])
    assert grad.shape == v.shape


def test_pads_of_another_dtype_get_gradients_of_theirs():
    # Under autocast the maps are bfloat16, and the pads, which are a bias, float32.
    q, k, v, indices, *pads = make_tensors('official', torch.bfloat16)
    pads = [pad.float().requires_grad_() for pad in pads]
    out = attend(q, k, v, indices, *pads)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.sum(), pads)
    assert [grad.dtype for grad in grads] == [torch.float32] * 2


@each_padding
def test_only_the_inputs_are_kept_for_the_backward_pass(padding):
    tensors = make_tensors(padding)
    for x in tensors[:3]:
        x.requires_grad_()
    own = {x.untyped_storage().data_ptr() for x in tensors if x is not None}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attend(*tensors)
    assert kept
    assert {x.untyped_storage().data_ptr() for x in kept} <= own


@each_padding
def test_export_takes_operators_that_are_not_ours(padding):
    class Attend(torch.nn.Module):
        def forward(self, q, k, v, indices, pad_key, pad_value):
            return attend(q, k, v, indices, pad_key, pad_value)

    tensors = make_tensors(padding, torch.float64)
    batch = torch.export.Dim('batch')
    shapes = [{0: batch}] * 4 + [None] * 2
    program = torch.export.export(Attend(), tuple(tensors), dynamic_shapes=tuple(shapes))
    names = [str(node.target) for node in program.graph.nodes]
    assert not [name for name in names if 'mmbiformer' in name]
    assert [name for name in names if 'scaled_dot_product_attention' in name]
    one = [x if x is None or x.ndim == 1 else x[:1] for x in tensors]
    torch.testing.assert_close(program.module()(*one), attend(*one), rtol=0, atol=1e-13)


def test_traced_equals_eager():
    tensors = make_tensors('official', torch.float64)
    traced = torch.jit.trace(attend, tuple(tensors), check_trace=False)
    torch.testing.assert_close(traced(*tensors), attend(*tensors), rtol=0, atol=1e-13)


@each_padding
def test_exported_with_other_shapes_equals_eager(padding):
    case = Case(7, 8, S, topk=2, padding=padding, **PLUGGED_IN)
    arguments = make_inputs(case)
    tensors = {**arguments.tensors, 'indices': arguments.indices}

    class Attend(torch.nn.Module):
        def forward(self, tensors):
            return routed_attention(**tensors, **arguments.settings)

    program = torch.export.export(Attend(), (tensors,))
    expected = routed_attention(**tensors, **arguments.settings)
    torch.testing.assert_close(program.module()(tensors), expected, rtol=0, atol=1e-13)


def test_flops_are_counted():
    q, k, v, indices, *pads = make_tensors('official')
    tokens = 3 * 3  # of a region; two are routed to
    products = 2 * 2 * 7 * 8 * (2 * tokens) * q.shape[-1]  # multiply-adds of the forward pass
    with FlopCounterMode(display=False) as counter:
        out = attend(q, k, v.requires_grad_(), indices, *pads)
    assert counter.get_total_flops() == 2 * products
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 5 * products


def test_the_backend_that_ran_forward_runs_backward(monkeypatch):
    q, k, v, indices, *pads = make_tensors('official')
    out = attend(q, k, v.requires_grad_(), indices, *pads, backend='auto')
    monkeypatch.setattr(backends, '_FROM_ENVIRONMENT', 'triton')
    out.sum().backward()
    assert v.grad.abs().sum() > 0


@needs_triton
def test_gradients_of_outputs_that_nobody_uses_are_not_made():
    tensors = make_tensors('masked', head_dim=16, backend='triton')
    operator = torch.ops.mmbiformer.routed_attention
    tensors[0].requires_grad_()
    out, kept = operator(*tensors, S, HEADS, SCALE, None, 'triton')
    assert kept.numel() > 0
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            seen.append((str(function), getattr(result, 'shape', None)))
            return result

    with Recorder():
        out.backward(torch.ones_like(out.detach()))
    assert [name for name, _ in seen if 'routed_attention_backward' in name]
    assert not [name for name, shape in seen if 'zeros' in name and shape == kept.shape]
