"""The backbone as a part of mm models: shapes, options, modes, numerics, errors."""

import copy
import pickle
from math import ceil

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer import BiFormer
from mmbiformer.layers import BiLevelRoutingAttention, DropPath, FullAttention

SMALL = dict(embed_dims=(32, 64, 96, 128), depths=(1, 1, 2, 1), topks=(1, 2, 4, None))
STRIDES = (4, 8, 16, 32)
each_padding = pytest.mark.parametrize('padding', ['official', 'masked'])


def build(seed: int = 0, **kwargs) -> BiFormer:
    """A small backbone whose norms are not all alike."""
    torch.manual_seed(seed)
    backbone = BiFormer(**{'arch': SMALL, 'partition_factor': 3, **kwargs})
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, std=0.1)
    return backbone


def gradients(backbone: nn.Module, x: torch.Tensor, outs=None) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every output value differently."""
    backbone.zero_grad()
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for out in backbone(x) if outs is None else outs:
        weight = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        loss = loss + (out * weight.to(out.dtype)).sum()
    loss.backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def assert_all_close(results, expected, **tolerance):
    for result, truth in zip(results, expected, strict=True):
        torch.testing.assert_close(result, truth, **tolerance)


@each_padding
@pytest.mark.parametrize('backend', ['reference', 'chunked'])
@pytest.mark.parametrize(
    ('height', 'width'),
    [(1, 1), (1, 7), (33, 65), (31, 4), (64, 96), (97, 3), (2, 129)],
    ids=['1x1', '1x7', '33x65', '31x4', '64x96', '97x3', '2x129'],
)
def test_any_input_size(height, width, backend, padding):
    backbone = build(padding=padding, attention_backend=backend).eval()
    outs = backbone(torch.randn(1, 3, height, width))
    assert [tuple(out.shape) for out in outs] == [
        (1, dim, ceil(height / stride), ceil(width / stride))
        for dim, stride in zip(SMALL['embed_dims'], STRIDES, strict=True)
    ]
    assert all(out.isfinite().all() for out in outs)
    grads = gradients(backbone, torch.randn(1, 3, height, width))
    assert all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 3), (0, 1, 2), [1, 2, 3]], ids=str)
def test_out_indices(out_indices):
    full = build().eval()
    backbone = BiFormer(SMALL, partition_factor=3, out_indices=out_indices).eval()
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


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen_stages):
    backbone = build(frozen_stages=frozen_stages, drop_path_rate=0.5)
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


def test_frozen_stages_behind_the_last_output():
    backbone = build(frozen_stages=4, out_indices=(0,))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval(norm_eval):
    backbone = build(norm_eval=norm_eval).train()
    before = state(backbone)
    backbone(torch.randn(2, 3, 64, 64))
    running = {name for name, _ in backbone.named_buffers()}
    assert len(running) == 15
    assert changed(backbone, before) == (set() if norm_eval else running)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.stages.training
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training is not norm_eval


@each_padding
def test_with_cp_gives_the_same_gradients_and_recomputes(padding):
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    results, calls = [], []
    for with_cp in (False, True):
        backbone = build(with_cp=with_cp, padding=padding, drop_path_rate=0.3).double()
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


def test_drop_path_rate_grows_linearly_over_the_blocks():
    backbone = BiFormer('t', drop_path_rate=0.26)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.02 * i for i in range(14)], abs=1e-6)
    # A backbone without the last stages drops as often in those that it has.
    shallow = BiFormer('t', drop_path_rate=0.26, out_indices=(0, 1))
    rates = [module.drop_prob for module in shallow.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.02, 0.04, 0.06], abs=1e-6)


@each_padding
def test_images_of_a_batch_do_not_touch(padding):
    backbone = build(padding=padding).double().eval()
    x = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    with torch.no_grad():
        both, one, two = backbone(x), backbone(x[:1]), backbone(x[1:])
    assert_all_close(both, [torch.cat(x) for x in zip(one, two, strict=True)], rtol=0, atol=1e-12)


def test_channels_last_input_gives_contiguous_output():
    backbone = build().eval()
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


@each_padding
@pytest.mark.parametrize(
    ('dtype', 'bound'), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=['bf16', 'fp16']
)
def test_autocast(dtype, bound, padding):
    # All regions are attended to, as a rounded query may route elsewhere, and rightly so.
    arch = {**SMALL, 'topks': (9, 9, 9, None)}
    backbone = build(arch=arch, padding=padding).eval()
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


@each_padding
def test_compiles_to_one_graph(padding):
    backbone = build(padding=padding).double()
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


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_equal_the_original(copied):
    backbone = build(frozen_stages=1, norm_eval=True)
    clone = copied(backbone)
    x = torch.randn(1, 3, 40, 40)
    assert all(torch.equal(a, b) for a, b in zip(clone(x), backbone(x), strict=True))
    assert not clone.downsample_layers[0][1].training
    assert {n for n, p in clone.named_parameters() if p.requires_grad} == {
        n for n, p in backbone.named_parameters() if p.requires_grad
    }
    next(iter(clone.parameters())).data.zero_()
    assert next(iter(backbone.parameters())).any()


def test_initial_weights():
    backbone = BiFormer('t')
    backbone.init_weights()
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()


@pytest.mark.parametrize(
    ('names', 'embed_dims', 'depths'),
    [
        (('t', 'T', 'tiny', 'Tiny'), (64, 128, 256, 512), (2, 2, 8, 2)),
        (('s', 'small'), (64, 128, 256, 512), (4, 4, 18, 4)),
        (('b', 'base'), (96, 192, 384, 768), (4, 4, 18, 4)),
    ],
    ids=['tiny', 'small', 'base'],
)
def test_arch_names(names, embed_dims, depths):
    for name in names:
        with torch.device('meta'):
            backbone = BiFormer(name)
        assert tuple(len(stage) for stage in backbone.stages) == depths
        assert tuple(backbone.embed_dims) == embed_dims
        for i, topk in enumerate((1, 4, 16)):
            attention = backbone.stages[i][0].attn
            assert isinstance(attention, BiLevelRoutingAttention)
            assert attention.topk == topk
            assert attention.partition_factor == 7
            assert attention.num_heads == embed_dims[i] // 32
            assert attention.padding == 'official'
            assert attention.backend == 'auto'
        assert isinstance(backbone.stages[3][0].attn, FullAttention)
        assert backbone.stages[3][0].attn.num_heads == 8


def test_arch_dict():
    backbone = BiFormer(dict(embed_dims=[32, 64, 96, 128], depths=[1, 2, 1, 1]))
    assert [len(stage) for stage in backbone.stages] == [1, 2, 1, 1]
    assert backbone.stages[2][0].attn.topk == 16
    backbone = BiFormer(dict(SMALL, topks=(None, 3, None, 5)), padding='masked')
    attentions = [stage[0].attn for stage in backbone.stages]
    assert [getattr(attention, 'topk', None) for attention in attentions] == [None, 3, None, 5]
    assert attentions[1].padding == 'masked'


WRONG = {
    'name': (dict(arch='l'), r"arch='l' is unknown: choose from tiny, small, base"),
    'no name': (dict(arch=3), r'arch=3 must be a name or a dict'),
    'arch without depths': (
        dict(arch=dict(embed_dims=(32,) * 4)),
        r"arch has the keys \['embed_dims'\]: it takes embed_dims, depths and, optionally, topks",
    ),
    'arch with more': (dict(arch=dict(SMALL, dims=1)), r"keys \['depths', 'dims', .*it takes"),
    'three depths': (
        dict(arch=dict(SMALL, depths=(1, 1, 1))),
        r'arch\.depths=\(1, 1, 1\) must have 4 entries',
    ),
    'width': (
        dict(arch=dict(SMALL, embed_dims=(32, 64, 100, 128))),
        r'arch\.embed_dims has 100: it must be a multiple of 32',
    ),
    'depth 0': (
        dict(arch=dict(SMALL, depths=(1, 0, 1, 1))),
        r'arch\.depths=0 must be an integer at least 1',
    ),
    'topk 0': (dict(arch=dict(SMALL, topks=(0, 1, 1, 1))), r'arch\.topks=0 must be an integer'),
    'topk over S * S': (
        dict(partition_factor=3, arch='t'),
        r'topks\[2\]=16 exceeds the 9 regions of partition_factor=3: lower topks in arch or raise',
    ),
    'partition factor': (dict(partition_factor=0), r'partition_factor=0 must be .* at least 1'),
    'fraction': (dict(partition_factor=3.5), r'partition_factor=3\.5 must be an integer'),
    'no outputs': (dict(out_indices=()), r'out_indices=\(\) must be ascending stage numbers'),
    'outputs descend': (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\) must be ascending'),
    'outputs repeat': (dict(out_indices=(1, 1)), r'out_indices=\(1, 1\) must be ascending'),
    'output 4': (dict(out_indices=(3, 4)), r'out_indices=\(3, 4\) must .* from 0 to 3'),
    'drop path 1': (dict(drop_path_rate=1.0), r'drop_path_rate=1\.0 must be in \[0, 1\)'),
    'drop path < 0': (dict(drop_path_rate=-0.1), r'drop_path_rate=-0\.1 must be in \[0, 1\)'),
    'frozen 5': (dict(frozen_stages=5), r'frozen_stages=5 must be an integer from -1 to 4'),
    'frozen -2': (dict(frozen_stages=-2), r'frozen_stages=-2 must be an integer from -1 to 4'),
    'padding': (dict(padding='same'), r"padding='same' is unknown: choose from official, masked"),
    'backend': (
        dict(attention_backend='cuda'),
        r"attention_backend='cuda' is unknown: choose from auto, reference, chunked, triton",
    ),
}


@pytest.mark.parametrize(('kwargs', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BiFormer(**{'arch': SMALL, **kwargs})


# arXiv 2303.08810, table 2: 2.2, 4.5 and 9.8 G multiply-adds, 13.1, 25.5 and 56.8 M parameters.
@pytest.mark.parametrize(
    ('arch', 'giga_macs', 'mega_params'),
    [('t', 2.216, 13.1), ('s', 4.464, 25.5), ('b', 9.759, 56.8)],
)
def test_cost_at_224_is_the_published_one(arch, giga_macs, mega_params):
    backbone = BiFormer(arch, partition_factor=7, out_indices=(3,)).eval()
    dim = backbone.embed_dims[-1]
    # The classifier has a BatchNorm in place of the output norm, and a linear layer.
    num_params = sum(p.numel() for p in backbone.parameters()) + (dim + 1) * 1000
    assert round(num_params / 1e6, 1) == mega_params
    # PyTorch's counter knows no formula for the CPU's fused attention: use its plain products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        backbone(torch.randn(1, 3, 224, 224))
    macs = counter.get_total_flops() / 2 + dim * 1000
    assert round(macs / 1e9, 3) == giga_macs


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures('process_group')
def test_distributed_training_finds_no_unused_parameter():
    # As under RetinaNet, whose neck leaves the first stage out.
    backbone = build(out_indices=(1, 2, 3))
    model = DistributedDataParallel(backbone, find_unused_parameters=False)
    for _ in range(2):  # what the first left unreduced makes the second raise
        model.zero_grad()
        sum(out.square().sum() for out in model(torch.randn(2, 3, 64, 64))).backward()
        assert not [name for name, p in backbone.named_parameters() if p.grad is None]


def test_maps_suit_roi_align() -> None:
    from mmcv.ops import roi_align  # reads memory as (B, C, H, W), whatever the strides say

    image = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[0, 0.0, 0.0, 12.0, 12.0]])
    with torch.no_grad():
        out = BiFormer('t', partition_factor=4).eval()(image)[0]
    expected = roi_align(out.clone(memory_format=torch.contiguous_format), boxes, (2, 2))
    assert torch.equal(roi_align(out, boxes, (2, 2)), expected)
