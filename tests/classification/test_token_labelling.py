"""Token labelling: its loss against plain loops, and images and label maps that stay together."""

from math import log

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmpretrain.structures import DataSample
from zoo import TOKEN_LABELLING as NAME
from zoo import load

from mmbiformer.classification import MixToken, TokenLabelHead
from mmbiformer.errors import UserError


def in_scope():
    return DefaultScope.overwrite_default_scope('mmpretrain')


def distributions(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64).softmax(1)


def test_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    images, classes, dim, height, width = 3, 5, 4, 2, 3
    with in_scope():
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
    with in_scope():
        head = TokenLabelHead(num_classes=5, in_channels=4)
    sample = DataSample()
    sample.set_field(torch.rand(5, 7, 7), 'label_map')
    with pytest.raises(ValueError, match=r'label maps of \(7, 7\) do not fit .* \(2, 3\): '):
        head.loss((torch.rand(1, 4, 2, 3),), [sample])


@pytest.mark.parametrize('seed', range(20))
def test_mix_token_mixes_images_and_label_maps_alike(seed):
    """Every pixel and every token says which image it is of."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    count, height, width, stride = 4, 5, 3, 8
    numbers = torch.arange(count, dtype=torch.float64)
    images = numbers[:, None, None, None].expand(count, 3, height * stride, width * stride)
    label_maps = torch.eye(count, dtype=torch.float64)[:, :, None, None].expand(
        count, count, height, width
    )
    scores = torch.eye(count, dtype=torch.float64)
    mixed, mixed_scores, mixed_maps = MixToken(1.0)(images, scores, label_maps)
    assert (mixed == mixed[:, :1]).all()
    for b in range(count):
        of_tokens = mixed_maps[b].argmax(0)
        assert torch.equal(mixed_maps[b].sum(0), torch.ones(height, width, dtype=torch.float64))
        pixels = mixed[b, 0].reshape(height, stride, width, stride)
        assert (pixels == of_tokens[:, None, :, None]).all()
        counts = torch.bincount(of_tokens.flatten(), minlength=count) / (height * width)
        torch.testing.assert_close(mixed_scores[b], counts.double(), rtol=0, atol=1e-7)


def test_mix_token_takes_no_other_sizes():
    with pytest.raises(ValueError, match=r'images of \(30, 30\) must be multiples of .* \(7, 7\)'):
        MixToken()(torch.rand(2, 3, 30, 30), torch.rand(2, 5), torch.rand(2, 5, 7, 7))
    with pytest.raises(ValueError, match='alpha=0 of MixToken must be above 0'):
        MixToken(0)


@pytest.fixture
def image(tmp_path):
    """An image whose brightness is the label's probability, and its label map."""
    import cv2

    rng = np.random.default_rng(0)
    chance = cv2.resize(rng.uniform(0.2, 0.8, (6, 8)), (160, 120), interpolation=cv2.INTER_LINEAR)
    (tmp_path / 'images/cat').mkdir(parents=True)
    (tmp_path / 'maps/cat').mkdir(parents=True)
    path = tmp_path / 'images/cat/1.png'
    cv2.imwrite(str(path), np.repeat((255 * chance)[..., None], 3, 2).round().astype(np.uint8))
    small = cv2.resize(chance, (16, 12), interpolation=cv2.INTER_AREA)
    classes = np.stack([np.full_like(small, 2), np.full_like(small, 0)]).astype(np.int16)
    np.savez(tmp_path / 'maps/cat/1.npz', scores=np.stack([small, 1 - small]), classes=classes)
    return dict(img_path=str(path), gt_label=2)


def pipeline(folder, **flip) -> Compose:
    own = 'mmbiformer.classification.'
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type=f'{own}LoadLabelMap', folder=str(folder), num_classes=3),
        dict(type=f'{own}RandomResizedCropWithLabelMap', map_size=7, scale=224),
        dict(type=f'{own}RandomFlipWithLabelMap', **flip),
        dict(type='PackInputs', algorithm_keys=('label_map',)),
    ]
    with in_scope():
        return Compose([TRANSFORMS.build(step) for step in steps])


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('seed', range(3))
def test_the_label_map_follows_the_image(image, tmp_path, direction, seed):
    np.random.seed(seed)
    packed = pipeline(tmp_path / 'maps', prob=1.0, direction=direction)(dict(image))
    label_map = packed['data_samples'].label_map
    assert label_map.shape == (3, 7, 7)
    torch.testing.assert_close(label_map.sum(0), torch.ones(7, 7))
    assert label_map[1].eq(0).all()
    brightness = packed['inputs'][0].float().reshape(7, 32, 7, 32).mean((1, 3)) / 255
    # The map is sampled at the middles of tokens, the brightness averaged over them.
    assert (label_map[2] - brightness).abs().max() < 0.06
    assert label_map[2].std() > 0.05


def test_a_missing_label_map_is_named(image, tmp_path):
    (tmp_path / 'maps/cat/1.npz').unlink()
    with pytest.raises(UserError, match=r"label map '.*maps/cat/1\.npz' of '.*1\.png' not found"):
        pipeline(tmp_path / 'maps', prob=0.0)(dict(image))


WRONG = {
    'class': dict(scores=np.ones((1, 2, 2)), classes=np.full((1, 2, 2), 3)),
    'shape': dict(scores=np.ones((1, 2, 2)), classes=np.zeros((1, 2, 3), int)),
    'negative': dict(scores=-np.ones((1, 2, 2)), classes=np.zeros((1, 2, 2), int)),
    'key': dict(scores=np.ones((1, 2, 2))),
}


@pytest.mark.parametrize('content', WRONG.values(), ids=WRONG)
def test_a_wrong_label_map_is_named(image, tmp_path, content):
    np.savez(tmp_path / 'maps/cat/1.npz', **content)
    with pytest.raises(UserError, match=r"label map '.*maps/cat/1\.npz' (must have|cannot be)"):
        pipeline(tmp_path / 'maps', prob=0.0)(dict(image))


def test_config_trains_a_step(image, tmp_path):
    """Images and label maps of the config's pipeline go through the config's classifier."""
    cfg = load(NAME)
    cfg.train_pipeline[1].update(folder=str(tmp_path / 'maps'))
    cfg.model.backbone.arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 1, 1))
    cfg.model.head.in_channels = 64
    torch.manual_seed(0)
    with in_scope():
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
    assert cfg.model.train_cfg is None and cfg.model.mix_token == dict(alpha=1.0)
    kinds = [step.type.rpartition('.')[2] for step in cfg.train_dataloader.dataset.pipeline]
    plain = [step.type for step in base.train_dataloader.dataset.pipeline]
    assert [kind.removesuffix('WithLabelMap') for kind in kinds if 'Load' not in kind] == plain[1:]
    assert kinds[1] == 'LoadLabelMap'
