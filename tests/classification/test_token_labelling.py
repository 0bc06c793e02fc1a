"""Token labelling: its loss against plain loops, MixToken, and the config."""

from math import log

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from scipy.stats import ks_2samp
from zoo import TOKEN_LABELLING as NAME
from zoo import load

from mmbiformer.classification import TokenLabelClassifier, TokenLabelHead
from mmbiformer.classification.token_labelling import draw_rectangle, mix_tokens


def distributions(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64).softmax(1)


def test_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    images, classes, dim, height, width = 3, 5, 4, 2, 3
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loss = dict(type='CrossEntropyLoss', use_soft=True)
        head = TokenLabelHead(0.3, num_classes=classes, in_channels=dim, loss=loss).double()
    features = torch.randn(images, dim, height, width, dtype=torch.float64)
    maps, scores = distributions(images, classes, height, width), distributions(images, classes)
    samples = [DataSample() for _ in range(images)]
    for sample, score, label_map in zip(samples, scores, maps, strict=True):
        sample.set_gt_score(score)
        sample.set_field(label_map, 'label_map')
    losses = head.loss((features,), samples)

    def cross_entropy(layer, vector, target) -> float:
        logits = [
            sum(w * x for w, x in zip(row, vector, strict=True)) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        total = log(sum(np.exp(x) for x in logits))
        return -sum(p * (x - total) for p, x in zip(target, logits, strict=True))

    of_images, of_tokens = [], []
    for b in range(images):
        tokens = [
            [features[b, c, y, x].item() for c in range(dim)]
            for y in range(height)
            for x in range(width)
        ]
        targets = [maps[b, :, y, x].tolist() for y in range(height) for x in range(width)]
        mean = [sum(token[c] for token in tokens) / len(tokens) for c in range(dim)]
        of_images.append(cross_entropy(head.fc, mean, scores[b].tolist()))
        of_tokens += [
            cross_entropy(head.token_fc, token, target)
            for token, target in zip(tokens, targets, strict=True)
        ]
    assert losses['loss'].item() == pytest.approx(np.mean(of_images), rel=1e-12)
    assert losses['loss_token'].item() == pytest.approx(0.3 * np.mean(of_tokens), rel=1e-12)
    assert torch.equal(head((features,)), head.fc(features.mean((2, 3))))


def test_label_maps_of_another_size_than_the_features():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = TokenLabelHead(num_classes=5, in_channels=4)
    sample = DataSample()
    sample.set_field(torch.rand(5, 7, 7), 'label_map')
    with pytest.raises(ValueError, match=r'label maps of \(7, 7\) do not fit .* \(2, 3\): '):
        head.loss((torch.rand(1, 4, 2, 3),), [sample])


def test_mix_token_mixes_images_and_label_maps_alike():
    """Every pixel and every token says which image it is of."""
    count, height, width, stride = 4, 5, 3, 8
    numbers = torch.arange(count, dtype=torch.float64)
    images = numbers[:, None, None, None].expand(count, 3, height * stride, width * stride)
    label_maps = torch.eye(count, dtype=torch.float64)[:, :, None, None].expand(
        count, count, height, width
    )
    scores = torch.eye(count, dtype=torch.float64)
    shares = []
    for seed in range(20):
        np.random.seed(seed)
        torch.manual_seed(seed)
        mixed, mixed_scores, mixed_maps = mix_tokens(images, scores, label_maps)
        assert (mixed == mixed[:, :1]).all()
        for b in range(count):
            of_tokens = mixed_maps[b].argmax(0)
            assert torch.equal(
                mixed_maps[b].sum(0), torch.ones(height, width, dtype=torch.float64)
            )
            pixels = mixed[b, 0].reshape(height, stride, width, stride)
            assert (pixels == of_tokens[:, None, :, None]).all()
            counts = torch.bincount(of_tokens.flatten(), minlength=count) / (height * width)
            torch.testing.assert_close(mixed_scores[b], counts.double(), rtol=0, atol=1e-7)
            shares.append(mixed_scores[b, b].item())
    # Of a whole rectangle all would be 0 or 1, of an empty one all would be 1.
    assert sum(0 < share < 1 for share in shares) > len(shares) / 3


def test_shares_of_rectangles_are_those_of_beta_before_they_are_cut_at_the_border():
    np.random.seed(0)
    size, shares = 200, []
    for _ in range(2000):
        rows, columns = (range(size)[part] for part in draw_rectangle(size, size))
        shares.append(len(rows) * len(columns) / size**2)
    rng = np.random.default_rng(1)
    side = np.sqrt(1 - rng.beta(1, 1, 20000))
    expected = 1.0
    for middle in rng.uniform(size=(2, 20000)):
        expected *= np.minimum(middle + side / 2, 1) - np.maximum(middle - side / 2, 0)
    assert ks_2samp(shares, expected).statistic < 0.04


def test_mix_token_takes_no_other_sizes():
    with pytest.raises(ValueError, match=r'images of \(30, 30\) must be multiples of .* \(7, 7\)'):
        mix_tokens(torch.rand(2, 3, 30, 30), torch.rand(2, 5), torch.rand(2, 5, 7, 7))


def test_the_classifier_hands_mixed_labels_and_label_maps_to_its_head(monkeypatch):
    """Two images of the labels 2 and 0, with the first token of the other one each."""
    monkeypatch.setattr(
        'mmbiformer.classification.token_labelling.draw_rectangle', lambda *_: (slice(1), slice(1))
    )
    monkeypatch.setattr(torch, 'randperm', lambda count, **_: torch.arange(count).flip(0))
    backbone = dict(type='mmbiformer.CloFormer', arch='xxs', out_indices=(3,))
    head = dict(
        type='mmbiformer.classification.TokenLabelHead',
        num_classes=3,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    )
    kind = 'mmbiformer.classification.TokenLabelClassifier'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type=kind, backbone=backbone, head=head))
    assert isinstance(model, TokenLabelClassifier)
    seen = {}
    monkeypatch.setattr(model, 'extract_feat', lambda images: seen.update(images=images) or ())
    monkeypatch.setattr(model.head, 'loss', lambda _, samples: seen.update(samples=samples))
    samples = [DataSample(), DataSample()]
    images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 64, 64)
    maps = torch.zeros(2, 3, 2, 2)
    maps[0, 2] = maps[1, 0] = 1
    for sample, label, label_map in zip(samples, (2, 0), maps, strict=True):
        sample.set_gt_label(label).set_field(label_map, 'label_map')
    model.loss(images, samples)
    first, second = seen['samples']
    assert first.gt_score.tolist() == [0.25, 0, 0.75]
    assert second.gt_score.tolist() == [0.75, 0, 0.25]
    assert first.label_map.argmax(0).tolist() == [[0, 2], [2, 2]]
    assert second.label_map.argmax(0).tolist() == [[2, 0], [0, 0]]
    assert seen['images'].mean((1, 2, 3)).tolist() == [0.25, 0.75]


def test_config_trains_a_step(image, tmp_path):
    """Images and label maps of the config's pipeline go through the config's classifier."""
    cfg = load(NAME)
    cfg.train_pipeline[1].update(folder=str(tmp_path / 'maps'))
    cfg.model.backbone.arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 1, 1))
    cfg.model.head.in_channels = 64
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).train()
        steps = Compose(cfg.train_pipeline)
    items = [steps(dict(image)) for _ in range(2)]
    data = dict(
        inputs=[item['inputs'] for item in items],
        data_samples=[item['data_samples'] for item in items],
    )
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    assert losses.keys() == {'loss', 'loss_token'}
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_config_has_the_recipe_of_the_classifier():
    cfg, base = load(NAME), load('biformer-s_8xb128_in1k')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_dataloader'):
        assert cfg[key] == base[key]
    assert cfg.model.backbone == base.model.backbone
    assert cfg.model.train_cfg is None
    kinds = [step.type.rpartition('.')[2] for step in cfg.train_dataloader.dataset.pipeline]
    plain = [step.type for step in base.train_dataloader.dataset.pipeline]
    assert [kind.removesuffix('WithLabelMap') for kind in kinds if 'Load' not in kind] == plain[1:]
    assert kinds[1] == 'LoadLabelMap'
    assert not cfg.keys() - base.keys(), 'an option that would change nothing'
