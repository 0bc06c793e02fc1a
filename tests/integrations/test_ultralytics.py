"""The attention in Ultralytics' models, against the installed package."""

import pytest
import torch
from torch import nn
from ultralytics_runs import CONFIGS, YOLO, needs_index, run_python

import mmbiformer
from mmbiformer import layers
from mmbiformer.errors import UserError
from mmbiformer.integrations.ultralytics import (
    BiFormer,
    BiLevelRoutingAttention,
    CloAttention,
    CloFormer,
)
from mmbiformer.layers import BiLevelRoutingAttention as Layer

# File, the plain model of the same size, rows of the attention.
MODELS = {
    'yolov5n_bra-p3-p4-p5': ('yolov5n', [18, 22, 26]),
    'yolov8n_bra-p3': ('yolov8n', [16]),
    'yolov8s_bra-p3': ('yolov8s', [16]),
    'yolo11n_bra-p3': ('yolo11n', [17]),
    'yolo11m_bra-p3': ('yolo11m', [17]),
}


def untrained(name: str) -> YOLO:
    torch.manual_seed(0)
    model = YOLO(CONFIGS / f'{name}.yaml')
    model.ckpt = {}  # without it, Ultralytics 8.3.0 cannot save what was never trained
    return model


def sources(layer: nn.Module) -> list[int]:
    """The rows that a row takes its input from, by their numbers."""
    rows = [layer.f] if isinstance(layer.f, int) else layer.f
    return [layer.i + row if row < 0 else row for row in rows]


@pytest.mark.parametrize('name', MODELS)
def test_model_is_the_plain_one_with_attention_on_its_outputs(name) -> None:
    plain_name, attended = MODELS[name]
    model, plain = untrained(name).model, YOLO(f'{plain_name}.yaml').model
    assert model.yaml['scales'] == plain.yaml['scales']
    assert [x.i for x in model.model if isinstance(x, BiLevelRoutingAttention)] == attended
    # What number a row has in the plain model. An attention has that of the row before it.
    number = {-1: -1}
    for layer in model.model:
        number[layer.i] = number[layer.i - 1] + (layer.i not in attended)
        if layer.i in attended:
            assert layer.f == -1
            continue
        other = plain.model[number[layer.i]]
        assert type(layer) is type(other)
        assert [number[row] for row in sources(layer)] == sources(other)
        assert not set(sources(layer)) & {row - 1 for row in attended}  # all take what is attended
        shapes, others = ({k: v.shape for k, v in x.state_dict().items()} for x in (layer, other))
        assert shapes == others
    assert number[len(model.model) - 1] == len(plain.model) - 1
    assert attended[0] == sources(model.model[-1])[0]


def test_tutorial_line_is_the_layer_on_maps_with_channels_first() -> None:
    torch.manual_seed(0)
    attention = BiLevelRoutingAttention()
    x = torch.randn(2, 64, 20, 23, requires_grad=True)
    out = attention(x)
    layer = Layer(64, num_heads=8, partition_factor=7, topk=4, lce_kernel=3)
    layer.load_state_dict(attention.attention.state_dict())
    expected = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    out.square().sum().backward()
    assert x.grad.abs().min() > 0
    assert all(p.grad.isfinite().all() for p in attention.parameters())


def test_options_of_the_yaml_reach_the_layer() -> None:
    attention = BiLevelRoutingAttention(dict(num_heads=4, topk=2, padding='masked'))
    attention(torch.zeros(1, 12, 8, 8))
    layer = attention.attention
    assert (layer.num_heads, layer.topk, layer.partition_factor) == (4, 2, 7)
    assert layer.padding == 'masked'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ((64,), 'argument 64 has no name: write '),
        ((64, 8), 'argument 64 has no name: write '),
        (({'topk': 4}, 8), 'argument 8 has no name: write '),
        (({'topk': 4}, {'topk': 8}), "argument {'topk': 8} has no name: write "),
        (({'n_win': 7},), 'unknown option n_win=7: choose among dim, num_heads, '),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, said) -> None:
    with pytest.raises(UserError, match='in the model YAML: ') as error:
        BiLevelRoutingAttention(*arguments)
    assert said in str(error.value)
    assert '\n' not in str(error.value)


def test_width_that_heads_do_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match='num_heads=8'):
        BiLevelRoutingAttention()(torch.zeros(1, 100, 8, 8))


def test_attention_of_cloformer_is_the_layer_on_maps_with_channels_first() -> None:
    torch.manual_seed(0)
    attention = CloAttention({'conv_heads': [2], 'global_heads': 2})
    x = torch.randn(2, 64, 20, 23)
    out = attention(x)
    layer = layers.CloAttention(64, (2,), (3,), 2)
    layer.load_state_dict(attention.attention.state_dict())
    expected = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('module', 'arguments', 'said'),
    [
        (CloFormer, (), 'CloFormer in the model YAML: arguments [] are not one architecture: wri'),
        (
            CloFormer,
            (64, 'xxs'),
            "arguments [64, 'xxs'] are not one architecture: write [-1, 1, ",
        ),
        (CloFormer, ('m',), "CloFormer in the model YAML: arch='m' is unknown: choose from xxs, "),
        (
            BiFormer,
            ({'S': 8},),
            'BiFormer in the model YAML: unknown option S=8: choose among ',
        ),
    ],
)
def test_arguments_of_backbones_that_do_not_fit_are_named(module, arguments, said) -> None:
    with pytest.raises(UserError) as error:
        module(*arguments)
    assert said in str(error.value)


def test_width_of_the_yaml_that_is_not_that_of_the_map_is_named() -> None:
    attention = CloAttention({'dim': 64})
    with pytest.raises(UserError, match=r'dim=64, but the row before it gives 32 channels: write'):
        attention(torch.zeros(1, 32, 8, 8))


def test_wrong_type_of_an_option_is_named() -> None:
    with pytest.raises(
        UserError, match=r'^CloAttention in the model YAML: conv_heads=4 must be a'
    ):
        CloAttention({'conv_heads': 4})(torch.zeros(1, 64, 8, 8))


def test_checkpoint_of_a_backbone_that_is_missing_is_named() -> None:
    init_cfg = {'type': 'Pretrained', 'checkpoint': 'no.pth'}
    with pytest.raises(UserError, match=r'^CloFormer in the model YAML: no\.pth can not be found'):
        CloFormer({'arch': 'xxs', 'init_cfg': init_cfg})


def test_weights_of_a_file_have_the_last_word_and_only_their_count_is_said(tmp_path) -> None:
    # mmengine's own initialisation logs each parameter.
    torch.save(mmbiformer.BiFormer('t').state_dict(), tmp_path / 'x.pth')
    init_cfg = "[{'type': 'Pretrained', 'checkpoint': 'x.pth'}, {'type': 'Constant', 'layer': "
    code = (
        'import torch; from mmbiformer.integrations.ultralytics import BiFormer\n'
        f"init_cfg = {init_cfg}'Linear', 'val': 3.0}}]\n"
        "backbone = BiFormer({'arch': 't', 'init_cfg': init_cfg}).backbone\n"
        "for name, value in torch.load('x.pth').items():\n"
        '    assert torch.equal(value, backbone.state_dict()[name]), name'
    )
    done = run_python('-c', code, cwd=tmp_path)
    told = done.stdout + done.stderr
    assert '265 tensors matched, 0 dropped, 0 new' in told
    assert 'downsample_layers' not in told


@needs_index
@pytest.mark.parametrize('size', ['n', 's'])
def test_cloformer_is_the_backbone_under_the_plain_head(size) -> None:
    model, plain = untrained(f'yolov8{size}_cloformer').model, YOLO(f'yolov8{size}.yaml').model
    assert model.yaml['scales'] == plain.yaml['scales']
    backbone = model.model[0]
    assert isinstance(backbone, CloFormer)
    # What number a row has in the plain model: its stages end at 4, 6 and 8, and SPPF is 9.
    number = {0: None, 1: 4, 2: 6, 3: 8, **{row: row + 5 for row in range(4, 18)}}
    for layer in model.model[4:]:
        other = plain.model[number[layer.i]]
        assert type(layer) is type(other)
        assert [number[row] for row in sources(layer)] == sources(other)
        widths, others = ([len(x) for x in module.parameters()] for module in (layer, other))
        # SPPF's inner width follows its input.
        assert widths[-1:] == others[-1:] if layer.i == 4 else widths == others
    assert number[len(model.model) - 1] == len(plain.model) - 1
    x = torch.zeros(1, 3, 64, 96)
    shapes = [tuple(level.shape) for level in backbone.eval()(x)]
    assert shapes == [(1, 32, 16, 24), (1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]
    for index in (1, 2, 3):
        assert sources(model.model[index]) == [0]
    assert model.stride.tolist() == [8, 16, 32]


@needs_index
@pytest.mark.parametrize('name', ['CloFormer', 'BiFormer'])
def test_backbone_computes_what_it_does_alone(name, tmp_path) -> None:
    text = (CONFIGS / 'yolov8_cloformer.yaml').read_text()
    arch = {'CloFormer': 'xxs', 'BiFormer': 't'}[name]
    text = text.replace('CloFormer, [xxs]', f'{name}, [{arch}]')
    if name == 'BiFormer':  # its stages are twice as wide
        text = text.replace('[256, 3]', '[512, 3]').replace('[128, 2]', '[256, 2]')
        text = text.replace('[64, 1]', '[128, 1]')
    (tmp_path / 'model.yaml').write_text(text)
    torch.manual_seed(0)
    bare = getattr(mmbiformer, name)(arch).eval()
    norms = [module for module in bare.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:  # as low as in official files, where eps counts
        nn.init.uniform_(norm.running_var, 0.005, 0.015)
    backbone = YOLO(tmp_path / 'model.yaml').model.model[0]
    backbone.backbone.load_state_dict(bare.state_dict())
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        outs, expected = backbone.eval()(x), bare(x)
    for out, truth in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, truth, rtol=0, atol=0)
    own = [x for x in backbone.modules() if isinstance(x, nn.BatchNorm2d)]
    assert [(x.eps, x.momentum) for x in own] == [(x.eps, x.momentum) for x in norms]


@needs_index
def test_biformer_is_a_backbone_too(tmp_path) -> None:
    text = (CONFIGS / 'yolov8_cloformer.yaml').read_text()
    line = '[{arch: {embed_dims: [32, 64, 128, 256], depths: [1, 1, 1, 1]}, partition_factor: 4}]'
    (tmp_path / 'model.yaml').write_text(text.replace('CloFormer, [xxs]', f'BiFormer, {line}'))
    model = YOLO(tmp_path / 'model.yaml').model
    assert model.model[0].backbone.stages[0][0].attn.partition_factor == 4
    assert len(model.eval()(torch.zeros(1, 3, 64, 64))[0]) == 1


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (5, 5), (6, 8), (3, 17)])
def test_any_size_and_more_regions_than_tokens(size) -> None:
    torch.manual_seed(0)
    attention = BiLevelRoutingAttention()
    x = torch.randn(2, 16, *size)
    out = attention(x)
    assert out.shape == x.shape
    reference = Layer(16, 8, 7, 4, backend='reference', lce_kernel=3)
    reference.load_state_dict(attention.attention.state_dict())
    expected = reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype) -> None:
    torch.manual_seed(0)
    # All regions, as a choice among them may turn out otherwise in half precision.
    attention = BiLevelRoutingAttention(dict(topk=49)).eval()
    x = torch.randn(1, 64, 16, 16)
    expected = attention(x)
    with torch.autocast('cpu', dtype):
        assert_close_in(attention(x), expected, dtype)
    assert_close_in(attention.to(dtype)(x.to(dtype)), expected, dtype)


def assert_close_in(out: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert out.dtype == dtype
    bound = 8 * torch.finfo(dtype).eps * expected.abs().max()
    assert (out - expected).abs().max() < bound


def test_layer_that_would_be_made_too_late_to_be_trained_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), BiLevelRoutingAttention())
    with pytest.raises(UserError, match=r'does not know its width.*write .*\{dim: 64\}'):
        model.to('cpu')
    model(torch.zeros(1, 3, 8, 8))
    assert len(list(model.to('cpu').parameters())) == 8


def test_model_that_is_built_without_a_call_takes_the_width_from_the_yaml(tmp_path) -> None:
    path = tmp_path / 'classifier.yaml'
    path.write_text("""
        nc: 2
        backbone:
          - [-1, 1, Conv, [16, 3, 2]]
          - [-1, 1, BiLevelRoutingAttention, [{dim: 16, num_heads: 2}]]
        head: [[-1, 1, Classify, [nc]]]
    """)
    model = YOLO(path).model.to('cpu').eval()
    assert model.model[1].attention.num_heads == 2
    out = model(torch.zeros(1, 3, 32, 32))
    assert (out[0] if isinstance(out, tuple) else out).shape == (1, 2)


def test_trace_gives_the_same_at_every_size() -> None:
    torch.manual_seed(0)
    attention = BiLevelRoutingAttention().eval()
    x = torch.randn(1, 16, 20, 20)
    attention(x)
    traced = torch.jit.trace(attention, x)
    for size in [(20, 20), (5, 5), (9, 33)]:
        x = torch.randn(2, 16, *size)
        torch.testing.assert_close(traced(x), attention(x))


@pytest.mark.parametrize('file_format', ['torchscript', 'onnx'])
def test_export_of_a_whole_model(tmp_path, file_format) -> None:
    model = untrained('yolov8n_bra-p3')
    torch.manual_seed(0)
    for parameter in model.model.parameters():
        if parameter.ndim == 1:  # else all boxes of an untrained model are much the same
            nn.init.normal_(parameter, 1, 0.2)
    model.save(tmp_path / 'model.pt')
    path = YOLO(tmp_path / 'model.pt').export(format=file_format, imgsz=64, device='cpu')
    x = torch.rand(1, 3, 64, 64)
    expected = YOLO(tmp_path / 'model.pt').model.eval()(x)[0]
    if file_format == 'onnx':
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        out = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    else:
        out = torch.jit.load(path)(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)


def test_saved_model_loads_in_a_fresh_process_that_imports_ultralytics_alone(tmp_path) -> None:
    model = untrained('yolov5n_bra-p3-p4-p5')
    model.save(tmp_path / 'model.pt')
    model.model.half().float()  # as Ultralytics saves it
    x = torch.ones(1, 3, 64, 64)
    torch.save((x, model.model.eval()(x)[0]), tmp_path / 'case.pt')
    code = (
        'import torch; from ultralytics import YOLO\n'
        "x, expected = torch.load('case.pt')\n"
        "torch.testing.assert_close(YOLO('model.pt').model.eval()(x)[0], expected)"
    )
    run_python('-c', code, cwd=tmp_path)
