"""mmpretrain's classifier around our backbones: the official numbers, from the official files."""

import logging

import pytest
import torch
from golden import assert_grads, assert_probe, golden_cases, normal, official_state_dict
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmpretrain.models import ImageClassifier as MMPretrainClassifier
from zoo import TOKEN_LABELLING, load

from mmbiformer.backbones import BiFormer, BiFormerSTL, CloFormer
from mmbiformer.checkpoints import CheckpointError

FILES = {
    'official_biformer.json': BiFormer,
    'official_biformer_stl.json': BiFormerSTL,
    'official_cloformer.json': CloFormer,
}
CASES = {
    name: (case, family)
    for file, family in FILES.items()
    for name, case in golden_cases(file).items()
    if 'head.weight' in case.get('params', {})
}


def build(family: type, num_classes: int = 1000, **options) -> MMPretrainClassifier:
    """The classifier that a config describes, in float64."""
    backbone = dict(
        type=f'mmbiformer.{family.__name__}',
        out_indices=(3,),
        output_norm='classification',
        **options,
    )
    name = options.get('arch', 'tiny')
    dims = family.arch_settings[name]['embed_dims']
    cfg = dict(
        type='mmbiformer.classification.ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=dims[-1]),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg).double().eval()


def options_of(case: dict) -> dict:
    options = {} if case['arch'] == 'stl' else dict(arch=case['arch'])
    return options | (dict(partition_factor=case['n_win']) if 'n_win' in case else {})


def test_the_files_have_the_expected_cases():
    assert CASES.keys() == {
        *('tiny_224_classification', 'stl_224', 'stl_448', 'xxs_224', 'xs_256x320', 's_224')
    }


@pytest.mark.parametrize('name', CASES)
def test_official_file_gives_the_official_logits_and_gradients(name, tmp_path):
    case, family = CASES[name]
    model = build(family, **options_of(case))
    assert isinstance(model, MMPretrainClassifier)
    weights = official_state_dict(case)
    torch.save({'model': weights, 'optimizer': {}, 'epoch': 299}, tmp_path / 'official.pth')
    load_checkpoint(model, str(tmp_path / 'official.pth'), map_location='cpu', strict=True)
    assert sum(p.numel() for p in model.parameters()) == case['n_params']

    x = normal(case['seed'], case['input_shape']).requires_grad_()
    logits = model(x)
    assert_probe(logits.detach(), case['outputs'][0])
    if 'grad_params' not in case:
        return
    (logits * normal(case['seed'] + 1, logits.shape)).sum().backward()
    assert_probe(x.grad, case['grad_input'])
    params, names = dict(model.named_parameters()), family.checkpoint_names
    ours = {
        official: official.replace('head.', 'head.fc.')
        if official.startswith('head.')
        else f'backbone.{names.ours(official)}'
        for official in case['grad_params']
    }
    assert set(ours.values()) == params.keys()
    assert_grads({official: params[x].grad for official, x in ours.items()}, case['grad_params'])


@pytest.mark.parametrize('wrap', [False, True], ids=['bare', 'of DataParallel'])
def test_other_forms_of_official_files(wrap, tmp_path):
    case, family = CASES['xxs_224']
    weights = official_state_dict(case)
    content = {'model': {f'module.{n}': x for n, x in weights.items()}} if wrap else weights
    torch.save(content, tmp_path / 'official.pth')
    model = build(family, arch='xxs')
    load_checkpoint(model, str(tmp_path / 'official.pth'), map_location='cpu', strict=True)
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    assert torch.equal(model.backbone.norm.weight, weights['norm.weight'])


def test_own_checkpoint_returns(tmp_path):
    model, other = build(CloFormer, arch='xxs'), build(CloFormer, arch='xxs')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'own.pth')
    load_checkpoint(other, str(tmp_path / 'own.pth'), map_location='cpu', strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_init_cfg_takes_an_official_file(tmp_path):
    case, family = CASES['xxs_224']
    torch.save({'model': official_state_dict(case)}, tmp_path / 'official.pth')
    model = build(family, arch='xxs')
    model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
    model.init_weights()
    with torch.no_grad():
        logits = model(normal(case['seed'], case['input_shape']))
    assert_probe(logits, case['outputs'][0])


WRONG = {
    'no head': (lambda weights: weights.pop('head.bias'), 'has no head.bias'),
    'other classes': (
        lambda weights: weights.update({'head.weight': torch.zeros(7, 256)}),
        r'head.weight .* \(7, 256\), not \(1000, 256\): set num_classes',
    ),
    'no norm': (lambda weights: weights.pop('norm.weight'), '1 missing: norm.weight'),
    'one more': (lambda weights: weights.update(extra=torch.zeros(1)), '1 unexpected: extra'),
    'other width': (
        lambda weights: weights.update({'norm.weight': torch.zeros(5)}),
        r'norm.weight \(5,\), not \(256,\)',
    ),
}


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(('change', 'message'), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(change, message, strict, tmp_path):
    case, family = CASES['xxs_224']
    weights = official_state_dict(case)
    change(weights)
    torch.save({'model': weights}, tmp_path / 'official.pth')
    model = build(family, arch='xxs')
    # As init_cfg loads it, where mmengine would only warn, and as tools/test.py does.
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, str(tmp_path / 'official.pth'), map_location='cpu', strict=strict)


def classifier(name: str):
    cfg = load(name).model
    cfg.backbone.arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 1, 1))
    cfg.head.in_channels = 64
    cfg.train_cfg = None
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        (TOKEN_LABELLING, 'biformer-s_8xb128_in1k', 'dropped'),
        ('biformer-s_8xb128_in1k', TOKEN_LABELLING, 'new'),
    ],
    ids=['from token labelling', 'to token labelling'],
)
def test_evaluation_does_without_the_layer_for_tokens(
    tmp_path, caplog, monkeypatch, source, target, message
):
    trained, other = classifier(source), classifier(target)
    path = str(tmp_path / 'own.pth')
    torch.save({'state_dict': trained.state_dict()}, path)
    with pytest.raises(RuntimeError, match=r'head\.token_fc\.weight'):  # as --resume loads it
        load_checkpoint(other, path, map_location='cpu', strict=True)
    # A run before, in this process, may have taken the logger's lines for itself.
    monkeypatch.setattr(logging.getLogger('mmbiformer'), 'propagate', True)
    with caplog.at_level('INFO', logger='mmbiformer'):
        load_checkpoint(other.eval(), path, map_location='cpu', strict=True)
    names = 'head.token_fc.weight, head.token_fc.bias'
    line = f'classifier checkpoint: {names} {message}, which training alone uses'
    assert line in [record.getMessage() for record in caplog.records]
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(trained.eval()(images), other(images))
    # What evaluation uses must fit as ever.
    weights = trained.state_dict()
    del weights['head.fc.bias']
    torch.save({'state_dict': weights}, path)
    with pytest.raises(RuntimeError, match=r'head\.fc\.bias'):
        load_checkpoint(other, path, map_location='cpu', strict=True)
