"""The norm of classifiers over the last map, and files of classifiers beside dense backbones."""

import pytest
import torch
from backbones import SMALL_BIFORMER, SMALL_CLOFORMER
from torch import nn

from mmbiformer.backbones import BiFormer, BiFormerSTL, CloFormer, StagedBackbone
from mmbiformer.checkpoints import CheckpointError, strict

FAMILIES = {
    'BiFormer': (BiFormer, dict(arch=SMALL_BIFORMER, partition_factor=3), nn.BatchNorm2d),
    'BiFormer-STL': (BiFormerSTL, dict(arch=SMALL_BIFORMER, partition_factor=3), nn.LayerNorm),
    'CloFormer': (CloFormer, dict(arch=SMALL_CLOFORMER), nn.GroupNorm),
}
each_family = pytest.mark.parametrize(('kind', 'options', 'norm'), FAMILIES.values(), ids=FAMILIES)


def build(kind: type, options: dict, **more) -> StagedBackbone:
    torch.manual_seed(0)
    return kind(**{**options, **more}).double()


def build_classifier(kind: type, options: dict, **more) -> StagedBackbone:
    backbone = build(kind, options, out_indices=(3,), output_norm='classification', **more)
    nn.init.normal_(backbone.norm.weight)
    nn.init.normal_(backbone.norm.bias)
    if isinstance(backbone.norm, nn.BatchNorm2d):
        nn.init.normal_(backbone.norm.running_mean)
        nn.init.uniform_(backbone.norm.running_var, 0.5, 1.5)
    return backbone


@each_family
@pytest.mark.parametrize('training', [False, True])
def test_the_last_map_passes_the_official_norm(kind, options, norm, training):
    backbone = build_classifier(kind, options).train(training)
    assert type(backbone.norm) is norm
    norms = [name for name, _ in backbone.named_children() if name.startswith('norm')]
    assert norms == ['norm']
    x = torch.randn(2, 3, 70, 90, dtype=torch.float64)
    backbone.norm, own = nn.Identity(), backbone.norm
    (before,) = backbone(x)
    if norm is nn.LayerNorm:
        expected = own(before.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    else:
        expected = own(before)
    backbone.norm = own
    if isinstance(own, nn.BatchNorm2d):
        own.momentum = 0.0  # the statistics of the first call shall not change the second
    (out,) = backbone(x)
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    out.square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


@each_family
def test_other_outputs_have_no_such_norm(kind, options, norm):
    message = r"out_indices=\(2, 3\) must be \(3,\) where output_norm='classification'"
    with pytest.raises(ValueError, match=message):
        build(kind, options, out_indices=(2, 3), output_norm='classification')
    with pytest.raises(ValueError, match="output_norm='final' is unknown: choose from dense, "):
        build(kind, options, output_norm='final')


@each_family
def test_a_frozen_classifier_freezes_its_norm(kind, options, norm):
    backbone = build_classifier(kind, options, frozen_stages=4)
    assert not [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert not backbone.train().norm.training


def test_norm_eval_reaches_the_norm_of_the_classifier():
    kind, options, _ = FAMILIES['BiFormer']
    assert not build_classifier(kind, options, norm_eval=True).train().norm.training
    assert build_classifier(kind, options).train().norm.training


def test_batch_norm_may_become_sync_bn():
    kind, options, _ = FAMILIES['BiFormer']
    backbone = build_classifier(kind, options).eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    (expected,) = backbone(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    assert type(converted.norm) is nn.SyncBatchNorm
    torch.testing.assert_close(converted(x)[0], expected)


@each_family
def test_a_dense_backbone_starts_from_a_classifier(kind, options, norm, monkeypatch):
    """The classifier's norm has the shape of a LayerNorm, and must not be taken for one."""
    classifier, dense = build_classifier(kind, options), build(kind, options)
    weights = {f'backbone.{n}': x for n, x in classifier.state_dict().items()}
    weights |= {'head.fc.weight': torch.zeros(6, 128), 'head.fc.bias': torch.zeros(6)}
    said: list[str] = []
    monkeypatch.setattr(strict, 'print_log', lambda text, **_: said.append(text))
    dense.load_state_dict({'state_dict': weights})
    num_norm = len(classifier.norm.state_dict())
    matched = len(classifier.state_dict()) - num_norm
    counts = (
        f'{matched} tensors matched, {num_norm} (norm) dropped, 8 (norm0, norm1, norm2, norm3)'
    )
    assert [text.split(': ', 1)[1].startswith(counts) for text in said] == [True]
    for i in range(4):
        assert getattr(dense, f'norm{i}').weight.eq(1).all()
    for name, value in classifier.state_dict().items():
        if not name.startswith('norm.'):
            assert torch.equal(dense.state_dict()[name], value), name


@each_family
def test_a_classifier_does_not_start_from_a_file_without_its_norm(kind, options, norm):
    classifier, dense = build_classifier(kind, options), build(kind, options)
    with pytest.raises(CheckpointError, match=r'\d missing: norm.weight'):
        classifier.load_state_dict(dense.state_dict())


@each_family
def test_official_names_of_the_norm_are_ours(kind, options, norm):
    source, target = (
        build_classifier(kind, options),
        build(kind, options, out_indices=(3,), output_norm='classification'),
    )
    names = kind.checkpoint_names
    weights = {names.official(name): x for name, x in source.state_dict().items()}
    assert 'norm.weight' in weights
    target.load_state_dict({'model': weights | {'head.weight': torch.zeros(6, 128)}})
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name
