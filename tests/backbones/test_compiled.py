"""Backbones whose blocks ``torch.compile`` compiles: how often it does, and what they compute."""

import copy
import pickle

import pytest
import torch
from backbones import FAMILIES, assert_all_close, build, gradients
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmbiformer.backbones import base
from mmbiformer.layers import block, depthwise
from mmbiformer.ops import backends

# Stage 1 has maps a quarter of that. S = 3 divides them at the bottom, on the right, both, none.
SIZES = [(96, 144), (100, 144), (96, 152), (128, 160), (101, 131), (123, 97), (132, 132)]
SIZES += [(144, 96), (160, 96), (97, 201)]
FIRST_STAGES = dict(
    BiFormer=dict(embed_dims=(32, 64, 96, 128), depths=(2, 1, 1, 1), topks=(1, 2, 4, None)),
    CloFormer=dict(
        embed_dims=(16, 32, 48, 64),
        depths=(3, 2, 2, 1),
        conv_heads=(3, 2, 2, 1),
        global_heads=(1, 2, 2, 3),
    ),
)


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


def build_pair(family: str, backend='aot_eager', out_indices=(0,), **options):
    """A backbone, the same with compiled blocks, and a count of what was compiled."""
    arch = FIRST_STAGES['CloFormer' if family == 'CloFormer' else 'BiFormer']
    eager = build(family, arch=arch, out_indices=out_indices, **options)
    compiled, counter = copy.deepcopy(eager), CompileCounterWithBackend(backend)
    compiled.compile_blocks(backend=counter, fullgraph=True)
    return eager, compiled, counter


def assert_same(eager, compiled, x, tolerance=2e-5) -> None:
    """Outputs and gradients are those of the backbone that is not compiled."""
    torch.manual_seed(0)
    expected = eager(x)
    torch.manual_seed(0)
    outs = compiled(x)
    assert_all_close(outs, expected, rtol=0, atol=tolerance)
    if not torch.is_grad_enabled():
        return
    truth, grads = gradients(eager, x, expected), gradients(compiled, x, outs)
    error = sum((grads[name] - truth[name]).square().sum() for name in truth)
    assert error <= tolerance**2 * sum(grad.square().sum() for grad in truth.values())


@pytest.mark.parametrize(
    ('family', 'training', 'backend'),
    [
        ('BiFormer', True, 'aot_eager'),
        ('BiFormer', False, 'aot_eager'),
        ('BiFormer masked', True, 'eager'),
        ('BiFormerSTL', True, 'eager'),
        ('CloFormer', True, 'eager'),
    ],
)
def test_one_program_serves_a_stage_at_every_size(family, training, backend):
    eager, compiled, counter = build_pair(family, backend)
    counts = []
    with torch.set_grad_enabled(training):
        for i, size in enumerate(SIZES):
            x = torch.randn(2 + i % 2, 3, *size)
            assert_same(eager.train(training), compiled.train(training), x)
            counts.append(counter.frame_count)
    # Backends count a first attempt that met a number which must be constant, and is repeated.
    assert 1 <= counts[0] <= 2
    assert set(counts) == {counts[0]}


@torch._dynamo.config.patch(recompile_limit=2)
def test_each_stage_has_a_limit_of_its_own():
    """PyTorch takes no more than so many programs for one function, and then compiles nothing."""
    _, compiled, counter = build_pair('BiFormer', 'eager', (1,))
    counts = []
    for i in range(2):
        compiled.train()(torch.randn(2, 3, *SIZES[i]))
        with torch.no_grad():
            compiled.eval()(torch.randn(2, 3, *SIZES[i]))
        counts.append(counter.frame_count)
    assert counts == [4, 4]


@pytest.mark.parametrize(
    'options',
    [dict(with_cp=True), dict(frozen_stages=0, backend='eager'), dict(drop_path_rate=0.5)],
    ids=['with_cp', 'frozen stem', 'stochastic depth'],
)
def test_options_mean_the_same(options):
    eager, compiled, _ = build_pair('BiFormer', **options)
    assert_same(eager.train(), compiled.train(), torch.randn(4, 3, 50, 70))


def test_stochastic_depth_is_drawn_again():
    _, compiled, _ = build_pair('BiFormer', 'eager', drop_path_rate=0.9)
    x = torch.randn(4, 3, 50, 70)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])


def test_autocast():
    eager, compiled, _ = build_pair('BiFormer')
    x = torch.randn(2, 3, 50, 70)
    with torch.autocast('cpu', torch.bfloat16):
        outs, expected = compiled(x), eager(x)
    exact = eager(x)
    for out, other, true in zip(outs, expected, exact, strict=True):
        assert out.dtype == other.dtype
        # As far from float32 as the other, of rounding: not by another choice of regions.
        assert 0 < (out - true).norm() <= 1.5 * (other - true).norm()


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_not_compiled(copied):
    eager, compiled, counter = build_pair('BiFormer', 'eager')
    if copied is not copy.deepcopy:
        compiled.compile_blocks(backend='eager')  # a counter has no name to be pickled by
    clone, x = copied(compiled), torch.randn(1, 3, 50, 70)
    assert torch.equal(clone(x)[0], eager(x)[0])
    assert counter.frame_count == 0


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match=r"^option of torch.compile='bakend' is unknown: choose "):
        build().compile_blocks(bakend='eager')


def test_an_old_pytorch_is_refused(monkeypatch):
    monkeypatch.setattr(base.torch, 'compile', lambda model, *, dynamic=None: model)
    with pytest.raises(
        ValueError, match=r'^torch \S+ cannot keep .*: install torch 2.13 or newer'
    ):
        build().compile_blocks()


@pytest.mark.parametrize(
    ('asked', 'expected'),
    [
        ({}, base.FEWER_FILES),
        (dict(options={'max_autotune': True}), {**base.FEWER_FILES, 'max_autotune': True}),
        (
            dict(options={'cpp.enable_loop_tail_vec': True}),
            {**base.FEWER_FILES, 'cpp.enable_loop_tail_vec': True},
        ),
        (dict(mode='max-autotune'), None),
        (dict(backend='eager'), None),
    ],
)
def test_inductor_is_given_what_shortens_compiling(monkeypatch, asked, expected):
    given = []

    def note(model, *, dynamic, isolate_recompiles, backend=None, mode=None, options=None):
        given.append(options)
        return model

    monkeypatch.setattr(base.torch, 'compile', note)
    build().compile_blocks(**asked)
    assert given == [expected] * 4
    assert {*base.FEWER_FILES} <= {*torch._inductor.list_options()}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('backend', ['triton', 'chunked'])
def test_nothing_waits_for_the_gpu_or_depends_on_data(monkeypatch, family, backend):
    """Fake tensors have no values: what asks for one, or for a size that depends on it, raises.

    PyTorch without CUDA has no fake GPU that convolutions run on, so that the fake CPU takes the
    path of GPUs.
    """
    patch = monkeypatch.setattr
    row = backends.BACKENDS['triton']._replace(problem=None)
    monkeypatch.setitem(backends.BACKENDS, 'triton', row)
    for module in (block, depthwise):
        patch(module, 'is_eager_on_cpu', lambda _: False)
    options = {} if family == 'CloFormer' else dict(attention_backend=backend)
    backbone = build(family, drop_path_rate=0.1, **options)
    with FakeTensorMode():
        for module in backbone.modules():
            for name, x in [*module.named_parameters(recurse=False)]:
                setattr(module, name, torch.nn.Parameter(torch.empty(x.shape)))
            for name, x in [*module.named_buffers(recurse=False)]:
                setattr(module, name, torch.empty(x.shape, dtype=x.dtype))
        outs = backbone(torch.empty(2, 3, 50, 70))
        sum(out.sum() for out in outs).backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())
        with pytest.raises(DataDependentOutputException):
            outs[0].sum().item()
