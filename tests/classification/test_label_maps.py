"""Label maps: read, cropped and flipped with their images, against plain loops."""

from math import ceil, exp
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from zoo import CONFIGS, ROOT
from zoo import TOKEN_LABELLING as NAME

from mmbiformer.classification import LoadLabelMap, RandomResizedCropWithLabelMap
from mmbiformer.engine import load_config
from mmbiformer.errors import UserError

CLASSES = 7


def pipeline(folder, **flip) -> Compose:
    own = 'mmbiformer.classification.'
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type=f'{own}LoadLabelMap', folder=str(folder), num_classes=CLASSES),
        dict(type=f'{own}RandomResizedCropWithLabelMap', map_size=7, scale=224),
        dict(type=f'{own}RandomFlipWithLabelMap', **flip),
        dict(type='PackInputs', algorithm_keys=('label_map',)),
    ]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
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
    'of code': of_content(print),
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
    reason = '.*: restore it' if kind in BROKEN else 'must be a tensor .* 0 to 6:'
    with pytest.raises(UserError, match=rf"^label map '.*maps/cat/1\.pt' {reason}") as error:
        pipeline(tmp_path / 'maps', prob=0.0)(dict(image))
    assert '\n' not in str(error.value)


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
