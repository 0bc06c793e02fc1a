"""What every family has of its base: shapes, options, modes, numerics, as a part of mm models."""

import copy
import pickle
from math import ceil

import pytest
import torch
import torch.distributed as dist
from backbones import (
    FAMILIES,
    SMALL_BIFORMER,
    assert_all_close,
    build,
    changed,
    gradients,
    state,
)
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel

STRIDES = (4, 8, 16, 32)
each_family = pytest.mark.parametrize('family', FAMILIES)


@each_family
@pytest.mark.parametrize(
    ('height', 'width'),
    [(1, 1), (1, 7), (33, 65), (31, 4), (64, 96), (97, 3), (2, 129)],
    ids=['1x1', '1x7', '33x65', '31x4', '64x96', '97x3', '2x129'],
)
def test_any_input_size(family, height, width):
    backbone = build(family).eval()
    outs = backbone(torch.randn(1, 3, height, width))
    assert [tuple(out.shape) for out in outs] == [
        (1, dim, ceil(height / stride), ceil(width / stride))
        for dim, stride in zip(backbone.embed_dims, STRIDES, strict=True)
    ]
    assert all(out.isfinite().all() for out in outs)
    grads = gradients(backbone, torch.randn(1, 3, height, width))
    assert all(grad.isfinite().all() for grad in grads.values())


@each_family
@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 3), (0, 1, 2), [1, 2, 3]], ids=str)
def test_out_indices(family, out_indices):
    full = build(family).eval()
    backbone = build(family, out_indices=out_indices).eval()
    assert len(backbone.stages) == len(backbone.downsample_layers) == out_indices[-1] + 1
    norms = {name for name, _ in backbone.named_children() if name.startswith('norm')}
    assert norms == {f'norm{i}' for i in out_indices}
    own = backbone.state_dict()
    backbone.load_state_dict({name: full.state_dict()[name] for name in own})
    x = torch.randn(2, 3, 50, 70)
    expected = [full(x)[i] for i in out_indices]
    assert all(torch.equal(a, b) for a, b in zip(backbone(x), expected, strict=True))
    assert not [name for name, grad in gradients(backbone, x).items() if grad is None]


def frozen_modules(frozen_stages: int) -> tuple[str, ...]:
    """Name prefixes of what is frozen: the stem from 0 on, and i stages with all they have."""
    prefixes = ['downsample_layers.0.'] if frozen_stages >= 0 else []
    for i in range(frozen_stages):
        prefixes += [f'downsample_layers.{i}.', f'stages.{i}.', f'norm{i}.']
    return tuple(prefixes)


@each_family
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages(family, frozen_stages):
    backbone = build(family, frozen_stages=frozen_stages, drop_path_rate=0.5)
    frozen = frozen_modules(frozen_stages)
    for _ in range(2):  # the second time after eval() and train()
        for name, parameter in backbone.named_parameters():
            assert parameter.requires_grad != name.startswith(frozen), name
        for name, module in backbone.named_modules():
            if name and not list(module.children()):
                assert module.training != f'{name}.'.startswith(frozen), name
        assert backbone.train(False) is backbone
        assert not any(module.training for module in backbone.modules())
        assert backbone.train() is backbone

    before = state(backbone)
    outs = backbone(torch.randn(2, 3, 64, 64))
    buffers = {name for name, _ in backbone.named_buffers()}
    assert changed(backbone, before) == {name for name in buffers if not name.startswith(frozen)}
    assert [out.requires_grad for out in outs] == [i >= frozen_stages for i in range(4)]


@each_family
def test_frozen_stages_behind_the_last_output(family):
    backbone = build(family, frozen_stages=4, out_indices=(0,))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@each_family
@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval(family, norm_eval):
    backbone = build(family, norm_eval=norm_eval).train()
    before = state(backbone)
    backbone(torch.randn(2, 3, 64, 64))
    running = {name for name, _ in backbone.named_buffers()}
    norms = [x for x in backbone.modules() if isinstance(x, nn.BatchNorm2d)]
    assert len(running) == 3 * len(norms)
    assert bool(norms) == (family != 'BiFormerSTL')
    assert changed(backbone, before) == (set() if norm_eval else running)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.stages.training
    assert all(norm.training is not norm_eval for norm in norms)


@each_family
def test_with_cp_gives_the_same_gradients_and_recomputes(family):
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    results, calls = [], []
    for with_cp in (False, True):
        backbone = build(family, with_cp=with_cp, drop_path_rate=0.3).double()
        num_calls = []
        backbone.stages[2][1].mlp.register_forward_hook(lambda *_, n=num_calls: n.append(1))
        torch.manual_seed(3)  # of the dropped paths
        results.append(gradients(backbone, x))
        backbone.eval()
        with torch.no_grad():
            backbone(x)
        calls.append(len(num_calls))
    assert calls == [2, 3]
    plain, checkpointed = results
    assert plain.keys() == checkpointed.keys()
    assert_all_close(checkpointed.values(), plain.values(), rtol=0, atol=1e-11)


@each_family
def test_with_cp_under_autocast(family):
    """Parameters are cast anew when a block is computed again."""
    x, results = torch.randn(2, 3, 50, 70), []
    for with_cp in (False, True):
        backbone = build(family, with_cp=with_cp)
        with torch.autocast('cpu', torch.bfloat16):
            outs = backbone(x)
        results.append(gradients(backbone, x, outs))
    plain, checkpointed = results
    assert plain.keys() == checkpointed.keys()
    assert_all_close(checkpointed.values(), plain.values(), rtol=0, atol=0)
    assert {gradient.dtype for gradient in plain.values()} == {torch.float32}


@each_family
def test_images_of_a_batch_do_not_touch(family):
    backbone = build(family).double().eval()
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    with torch.no_grad():
        both, one, two = backbone(x), backbone(x[:1]), backbone(x[1:])
    assert_all_close(both, [torch.cat(x) for x in zip(one, two, strict=True)], rtol=0, atol=1e-12)


@each_family
def test_channels_last_input_gives_contiguous_output(family):
    backbone = build(family).eval()
    x = torch.randn(2, 3, 50, 70)
    contiguous = backbone(x)
    channels_last = backbone(x.contiguous(memory_format=torch.channels_last))
    for a, b in zip(contiguous, channels_last, strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous()
        assert b.is_contiguous()
    converted = backbone.to(memory_format=torch.channels_last)(x)
    assert all(out.is_contiguous() for out in converted)
    assert_all_close(converted, contiguous)


@each_family
@pytest.mark.parametrize(
    ('dtype', 'bound'), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=['bf16', 'fp16']
)
def test_autocast(family, dtype, bound):
    # All regions are attended to, as a rounded query may route elsewhere, and rightly so.
    options = {}
    if family.startswith('BiFormer'):
        options = dict(arch={**SMALL_BIFORMER, 'topks': (9, 9, 9, None)})
    backbone = build(family, **options).eval()
    x = torch.randn(2, 3, 50, 70)
    expected = backbone(x)
    truth = gradients(backbone, x)
    with torch.autocast('cpu', dtype):
        outs = backbone(x)
    for out, exact in zip(outs, expected, strict=True):
        assert out.isfinite().all()
        assert 0 < (out.float() - exact).norm() / exact.norm() < bound
    grads = gradients(backbone, x, outs)
    assert all(grad.isfinite().all() for grad in grads.values())
    total = sum((grads[name] - truth[name]).square().sum() for name in truth) ** 0.5
    assert total / sum(grad.square().sum() for grad in truth.values()) ** 0.5 < bound


@each_family
def test_compiles_to_one_graph(family):
    backbone = build(family).double()
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    start = state(backbone)
    expected = [out.detach() for out in backbone(x)]
    backbone.load_state_dict(start)
    truth = gradients(backbone, x)

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(backbone, backend=counter, fullgraph=True)
    backbone.load_state_dict(start)
    outs = compiled(x)
    assert counter.frame_count == 1
    assert_all_close(outs, expected, rtol=0, atol=1e-11)
    grads = gradients(backbone, x, outs)
    assert_all_close(grads.values(), truth.values(), rtol=0, atol=1e-10)


@each_family
@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_equal_the_original(family, copied):
    backbone = build(family, frozen_stages=1, norm_eval=True)
    clone = copied(backbone)
    x = torch.randn(1, 3, 40, 40)
    assert all(torch.equal(a, b) for a, b in zip(clone(x), backbone(x), strict=True))
    assert not clone.downsample_layers[0][1].training
    assert {n for n, p in clone.named_parameters() if p.requires_grad} == {
        n for n, p in backbone.named_parameters() if p.requires_grad
    }
    next(iter(clone.parameters())).data.zero_()
    assert next(iter(backbone.parameters())).any()


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@each_family
@pytest.mark.usefixtures('process_group')
def test_distributed_training_finds_no_unused_parameter(family):
    # As under RetinaNet, whose neck leaves the first stage out.
    backbone = build(family, out_indices=(1, 2, 3))
    model = DistributedDataParallel(backbone, find_unused_parameters=False)
    for _ in range(2):  # what the first left unreduced makes the second raise
        model.zero_grad()
        sum(out.square().sum() for out in model(torch.randn(2, 3, 64, 64))).backward()
        assert not [name for name, p in backbone.named_parameters() if p.grad is None]


@each_family
def test_maps_suit_roi_align(family):
    from mmcv.ops import roi_align  # reads memory as (B, C, H, W), whatever the strides say

    image = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[0, 0.0, 0.0, 12.0, 12.0]])
    with torch.no_grad():
        out = build(family).eval()(image)[0]
    expected = roi_align(out.clone(memory_format=torch.contiguous_format), boxes, (2, 2))
    assert torch.equal(roi_align(out, boxes, (2, 2)), expected)
