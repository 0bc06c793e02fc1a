"""Token labelling: its loss against plain loops, and images and label maps that stay together."""

import logging
from math import ceil, exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import load_checkpoint
from mmpretrain.structures import DataSample
from scipy.stats import ks_2samp
from zoo import CONFIGS, ROOT, load
from zoo import TOKEN_LABELLING as NAME

from mmbiformer.classification import (
    LoadLabelMap,
    RandomResizedCropWithLabelMap,
    TokenLabelClassifier,
    TokenLabelHead,
)
from mmbiformer.classification.token_labelling import draw_rectangle, mix_tokens
from mmbiformer.engine import load_config
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
    with in_scope():
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


CLASSES = 7


@pytest.fixture
def image(tmp_path):
    """An image whose brightness is the label's probability, and its published label map."""
    import cv2

    rng = np.random.default_rng(0)
    chance = cv2.resize(rng.uniform(0.2, 0.8, (6, 8)), (160, 120), interpolation=cv2.INTER_LINEAR)
    (tmp_path / 'images/cat').mkdir(parents=True)
    (tmp_path / 'maps/cat').mkdir(parents=True)
    path = tmp_path / 'images/cat/1.png'
    cv2.imwrite(str(path), np.repeat((255 * chance)[..., None], 3, 2).round().astype(np.uint8))
    small = cv2.resize(chance, (16, 12), interpolation=cv2.INTER_AREA)
    # The classes that are not in the file have the logit 0: hardly a chance beside 10.
    logits = np.full((5, 12, 16), -5.0)
    logits[:2] = 10 + np.log([small, 1 - small])
    classes = np.empty_like(logits)
    classes[:] = np.array([2, 0, 1, 3, 4])[:, None, None]
    torch.save(torch.from_numpy(np.stack([logits, classes])).half(), tmp_path / 'maps/cat/1.pt')
    return dict(img_path=str(path), gt_label=2)


def pipeline(folder, **flip) -> Compose:
    own = 'mmbiformer.classification.'
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type=f'{own}LoadLabelMap', folder=str(folder), num_classes=CLASSES),
        dict(type=f'{own}RandomResizedCropWithLabelMap', map_size=7, scale=224),
        dict(type=f'{own}RandomFlipWithLabelMap', **flip),
        dict(type='PackInputs', algorithm_keys=('label_map',)),
    ]
    with in_scope():
        return Compose([TRANSFORMS.build(step) for step in steps])


def bilinear(values: np.ndarray, y: float, x: float) -> float:
    """As RoIAlign takes a value between cells: 0 farther than a cell outside, else the border."""
    height, width = values.shape
    if not -1 <= y <= height or not -1 <= x <= width:
        return 0.0
    y, x = (min(max(at, 0), size - 1) for at, size in ((y, height), (x, width)))
    total = 0.0
    for row in range(height):
        for column in range(width):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            total += weight * values[row, column]
    return total


def pool(values: np.ndarray, box: tuple, size: int) -> np.ndarray:
    """RoIAlign of one class in plain loops; left, top, right and bottom in parts of the image."""
    height, width = values.shape
    left, right = (box[i] * width - 0.5 for i in (0, 2))
    top, bottom = (box[i] * height - 0.5 for i in (1, 3))
    step_y, step_x = max(bottom - top, 1) / size, max(right - left, 1) / size
    num_y, num_x = ceil(step_y), ceil(step_x)
    pooled = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            pooled[row, column] = np.mean(
                [
                    bilinear(
                        values,
                        top + step_y * (row + (i + 0.5) / num_y),
                        left + step_x * (column + (j + 0.5) / num_x),
                    )
                    for i in range(num_y)
                    for j in range(num_x)
                ]
            )
    return pooled


@pytest.mark.parametrize(
    ('cells', 'crop'),
    [
        ((18, 18), (0, 0, 50, 80)),
        ((18, 18), (31, 7, 12, 60)),
        ((9, 14), (3, 40, 45, 40)),
        ((2, 3), (20, 30, 11, 13)),
    ],
    ids=['whole', 'part', 'cells not square', 'less than a cell'],
)
def test_label_map_is_that_of_plain_loops(tmp_path, monkeypatch, cells, crop):
    """Logits of the other classes are 0; RoIAlign of each class; last the softmax over all."""
    rng = np.random.default_rng(0)
    height, width, size = 50, 80, 4
    logits = rng.normal(5, 4, (5, *cells)).astype(np.float16)
    classes = np.argsort(rng.random((CLASSES, *cells)), axis=0)[:5].astype(np.float16)
    path = tmp_path / 'maps/cat/1.pt'
    path.parent.mkdir(parents=True)
    torch.save(torch.from_numpy(np.stack([logits, classes])), path)
    load_map = LoadLabelMap(str(tmp_path / 'maps'), CLASSES)
    results = load_map(
        dict(img_path=str(tmp_path / 'cat/1.png'), img=np.zeros((height, width, 3), np.uint8))
    )
    step = RandomResizedCropWithLabelMap(size, scale=32)
    monkeypatch.setattr(step, 'rand_crop_params', lambda _: setattr(step, '_crop', crop) or crop)
    label_map = step(results)['label_map']

    dense = np.zeros((CLASSES, *cells))
    for k in range(5):
        for row in range(cells[0]):
            for column in range(cells[1]):
                dense[int(classes[k, row, column]), row, column] = logits[k, row, column]
    top, left, crop_height, crop_width = crop
    right, bottom = left + crop_width, top + crop_height
    box = left / width, top / height, right / width, bottom / height
    pooled = np.stack([pool(values, box, size) for values in dense])
    expected = np.zeros_like(pooled)
    for row in range(size):
        for column in range(size):
            total = sum(exp(x) for x in pooled[:, row, column])
            expected[:, row, column] = [exp(x) / total for x in pooled[:, row, column]]
    np.testing.assert_allclose(label_map, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('seed', range(3))
def test_the_label_map_follows_the_image(image, tmp_path, direction, seed):
    np.random.seed(seed)
    packed = pipeline(tmp_path / 'maps', prob=1.0, direction=direction)(dict(image))
    label_map = packed['data_samples'].label_map
    assert label_map.shape == (CLASSES, 7, 7)
    torch.testing.assert_close(label_map.sum(0), torch.ones(7, 7))
    assert label_map[[1, 3, 4, 5, 6]].max() < 1e-3
    brightness = packed['inputs'][0].float().reshape(7, 32, 7, 32).mean((1, 3)) / 255
    # Both are averaged over tokens, one of them as a logarithm and from coarser cells.
    assert (label_map[2] - brightness).abs().max() < 0.06
    assert label_map[2].std() > 0.05


def test_a_missing_label_map_is_named(image, tmp_path):
    (tmp_path / 'maps/cat/1.pt').unlink()
    option = r'train_dataloader\.dataset\.pipeline\.1\.folder=.* folder of LoadLabelMap'
    message = rf"label map '.*maps/cat/1\.pt' of '.*1\.png' not found: --cfg-options {option}"
    with pytest.raises(UserError, match=message):
        pipeline(tmp_path / 'maps', prob=0.0)(dict(image))


def of_content(content: object):
    return lambda path: torch.save(content, path)


def changed(channel: int, value: float):
    def write(path: Path) -> None:
        content = torch.load(path)
        content[channel, 1, 2, 3] = value
        torch.save(content, path)

    return write


BROKEN = {
    'truncated': lambda path: path.write_bytes(path.read_bytes()[:300]),
    'empty': lambda path: path.write_bytes(b''),
    'foreign': lambda path: path.write_text('no label map'),
    'of code': of_content(Path('x')),
}
WRONG = {
    'no tensor': of_content({'logits': 1}),
    'one map': of_content(torch.zeros(1, 5, 3, 3)),
    'no axis of classes': of_content(torch.zeros(2, 3, 3)),
    'no cell': of_content(torch.zeros(2, 5, 0, 3)),
    'infinite': changed(0, float('inf')),
    'nan': changed(0, float('nan')),
    'class too high': changed(1, CLASSES),
    'class too low': changed(1, -1),
    'class not whole': changed(1, 0.5),
}


@pytest.mark.parametrize('kind', [*BROKEN, *WRONG])
def test_a_wrong_label_map_is_named(image, tmp_path, kind):
    (BROKEN | WRONG)[kind](tmp_path / 'maps/cat/1.pt')
    reason = (
        r'cannot be read \(.+\): restore it' if kind in BROKEN else 'must be a tensor .* 0 to 6:'
    )
    with pytest.raises(UserError, match=rf"^label map '.*maps/cat/1\.pt' {reason}") as error:
        pipeline(tmp_path / 'maps', prob=0.0)(dict(image))
    assert '\n' not in str(error.value)


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
    assert cfg.model.train_cfg is None
    kinds = [step.type.rpartition('.')[2] for step in cfg.train_dataloader.dataset.pipeline]
    plain = [step.type for step in base.train_dataloader.dataset.pipeline]
    assert [kind.removesuffix('WithLabelMap') for kind in kinds if 'Load' not in kind] == plain[1:]
    assert kinds[1] == 'LoadLabelMap'
    assert not cfg.keys() - base.keys(), 'an option that would change nothing'


def test_the_folder_is_set_where_the_documentation_says():
    option = 'train_dataloader.dataset.pipeline.1.folder'
    page = (ROOT / 'docs/classification.md').read_text()
    assert f'--cfg-options {option}=' in page
    cfg = load_config(str(CONFIGS[NAME]), cfg_options={option: 'elsewhere'})
    assert [x.folder for x in cfg.train_dataloader.dataset.pipeline if 'folder' in x] == [
        'elsewhere'
    ]
    with pytest.raises(UserError, match="the config has no 'label_maps'"):
        load_config(str(CONFIGS[NAME]), cfg_options={'label_maps.folder': 'elsewhere'})


def classifier(name: str):
    cfg = load(name).model
    cfg.backbone.arch = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 1, 1))
    cfg.head.in_channels = 64
    cfg.train_cfg = None
    with in_scope():
        return MODELS.build(cfg)


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [(NAME, 'biformer-s_8xb128_in1k', 'dropped'), ('biformer-s_8xb128_in1k', NAME, 'new')],
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
