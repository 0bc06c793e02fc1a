"""The converter: what it writes loads, gives the golden outputs, and its errors are one line."""

import re
import sys

import pytest
import torch
from golden import assert_probe, golden_cases, normal, official_state_dict
from toolbox import run_command, run_tool

from mmbiformer import BiFormer, CloFormer
from mmbiformer.backbones import BiFormerSTL, SwinLayout

DENSE = golden_cases()['tiny_detection_S16']
CLASSIFIER = golden_cases()['tiny_224_classification']
STL = golden_cases('official_biformer_stl.json')['stl_224']


def convert(*args) -> None:
    run_tool('model_converters/biformer_to_mm', *args)


def error_line(capfd) -> str:
    # A logger that an earlier test made may complain that its stream is closed.
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith('error: ')]
    return line


def test_converted_detector_gives_the_golden_outputs(tmp_path, capfd):
    weights = {f'backbone.{name}': x for name, x in official_state_dict(DENSE).items()}
    weights['neck.lateral_convs.0.conv.weight'] = torch.ones(1)
    src, dst = tmp_path / 'detector.pth', tmp_path / 'backbone.pth'
    torch.save(dict(meta=dict(epoch=12), state_dict=weights), src)
    convert(src, dst)
    assert capfd.readouterr().out.splitlines()[-1] == f"{dst}: BiFormer(arch='tiny')"

    backbone = BiFormer(
        't',
        partition_factor=DENSE['n_win'],
        init_cfg=dict(type='Pretrained', checkpoint=str(dst)),
    ).double()
    backbone.init_weights()
    src.unlink(), dst.unlink()  # 100 MB each
    with torch.no_grad():
        outs = backbone.eval()(normal(DENSE['seed'], DENSE['input_shape']))
    for out, probe in zip(outs, DENSE['outputs'], strict=True):
        assert_probe(out, probe)


@pytest.mark.parametrize('arch', ['xxs', 's'])
def test_converted_cloformer_has_our_names_and_converts_again(tmp_path, capfd, arch):
    case = golden_cases('official_cloformer.json')[f'{arch}_224']
    weights = {name: x.float() for name, x in official_state_dict(case).items()}
    src, dst = tmp_path / 'classifier.pth', tmp_path / 'backbone.pth'
    torch.save(dict(model=weights), src)
    for source, target in ((src, dst), (dst, tmp_path / 'again.pth')):
        convert(source, target)
        assert capfd.readouterr().out.splitlines()[-1] == f"{target}: CloFormer(arch='{arch}')"
    backbone, expected = CloFormer(arch), CloFormer(arch)
    backbone.load_state_dict(torch.load(tmp_path / 'again.pth', weights_only=True))
    expected.load_state_dict(weights)
    norms = {name for name in backbone.state_dict() if name.startswith('norm')}
    for name, value in expected.state_dict().items():
        assert name in norms or torch.equal(backbone.state_dict()[name], value), name


def test_converted_classifier_has_our_names_and_no_classifier(tmp_path):
    src, dst = tmp_path / 'classifier.pth', tmp_path / 'backbone.pth'
    weights = {name: x.float() for name, x in official_state_dict(CLASSIFIER).items()}
    torch.save(dict(model=weights, epoch=299), src)
    command = 'tools/model_converters/biformer_to_mm.py'
    done = run_command(sys.executable, command, src, dst)
    assert (
        'BiFormer checkpoint: 257 tensors matched, 7 (norm, head) dropped, '
        '8 (norm0, norm1, norm2, norm3) new'
    ) in done.stdout

    content = torch.load(dst, weights_only=True)
    assert content['meta'] == dict(arch='tiny')
    backbone = BiFormer('t')
    norms = {name for name in backbone.state_dict() if name.startswith('norm')}
    assert content['state_dict'].keys() == backbone.state_dict().keys() - norms
    backbone.load_state_dict(content)
    expected = BiFormer('t')
    expected.load_state_dict(weights)
    for name, value in expected.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name
    src.unlink(), dst.unlink()


def test_an_own_architecture_is_converted(tmp_path, capfd):
    arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 2, 1))
    trained = BiFormer(arch)
    src, dst = tmp_path / 'own.pth', tmp_path / 'backbone.pth'
    torch.save({'state_dict': {f'backbone.{n}': x for n, x in trained.state_dict().items()}}, src)
    convert(src, dst)
    out = capfd.readouterr().out.splitlines()[-2:]
    assert out[0] == f'{dst}: BiFormer(arch={dict(arch, topks=(1, 4, 16, None))})'
    assert out[1].startswith('the numbers in topks are not in the weights')
    content = torch.load(dst, weights_only=True)
    backbone = BiFormer(content['meta']['arch'])
    backbone.load_state_dict(content)
    for name, value in trained.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name


def test_converted_stl_has_our_names(tmp_path, capfd):
    src, dst = tmp_path / 'classifier.pth', tmp_path / 'backbone.pth'
    weights = {name: x.float() for name, x in official_state_dict(STL).items()}
    torch.save(dict(model=weights, epoch=299), src)
    convert(src, dst)
    out = capfd.readouterr().out
    assert out.splitlines()[-1] == f"{dst}: BiFormerSTL(arch='tiny')"
    expected, backbone = BiFormerSTL(), BiFormerSTL()
    expected.load_state_dict(weights)
    backbone.load_state_dict(torch.load(dst, weights_only=True))
    for name, value in expected.state_dict().items():
        assert name.startswith('norm') or torch.equal(backbone.state_dict()[name], value), name
    src.unlink(), dst.unlink()


def test_another_attention_in_the_layout_is_one_line(tmp_path, capfd):
    src = tmp_path / 'axial.pth'
    arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 2, 1))
    torch.save(SwinLayout(arch, 'sequential_axial').state_dict(), src)
    with pytest.raises(SystemExit) as stop:
        convert(src, tmp_path / 'dst.pth')
    assert stop.value.code == 2
    assert 'of another architecture than the backbone: ' in error_line(capfd)


def tiny_weights() -> dict:
    return {name: torch.zeros(shape) for name, shape in DENSE['params'].items()}


def misshapen() -> dict:
    return {**tiny_weights(), 'stages.0.0.attn.wo.bias': torch.zeros(65)}


WRONG = {
    'missing file': (None, r"checkpoint '.*src\.pth' not found: check the path"),
    'text': (b'hello world', r"'.*src\.pth' cannot be read as a checkpoint: "),
    'list': ([1, 2], r"'.*src\.pth' holds no state dict: give a file of a model's weights"),
    'another model': (
        dict(state_dict={'layer1.0.weight': torch.zeros(1)}),
        r'the checkpoint is of no BiFormer',
    ),
    'another shape': (
        misshapen,
        r'.* 1 of another shape: stages\.0\.0\.attn\.proj\.bias \(in the file: '
        r'stages\.0\.0\.attn\.wo\.bias\) \(65,\), not \(64,\)',
    ),
}


@pytest.mark.parametrize(('content', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line(content, message, tmp_path, capfd):
    src = tmp_path / 'src.pth'
    content = content() if callable(content) else content
    if isinstance(content, bytes):
        src.write_bytes(content)
    elif content is not None:
        torch.save(content, src)
    with pytest.raises(SystemExit) as stop:
        convert(src, tmp_path / 'dst.pth')
    assert stop.value.code == 2
    assert re.match(f'error: {message}', error_line(capfd))
    assert not (tmp_path / 'dst.pth').exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capfd):
    torch.save(tiny_weights(), tmp_path / 'src.pth')
    with pytest.raises(SystemExit) as stop:
        convert(tmp_path / 'src.pth', tmp_path / 'none/dst.pth')
    assert stop.value.code == 2
    line = error_line(capfd)
    assert line.startswith(f"error: '{tmp_path}/none/dst.pth' cannot be written: ")
