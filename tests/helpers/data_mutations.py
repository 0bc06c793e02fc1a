"""Small data sets, and what goes wrong with the files of such: for tests, and many of them by

python tests/helpers/data_mutations.py --coco 10000 --images 2000 --seed 0
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import mmdet.datasets  # noqa: F401
import mmseg.datasets  # noqa: F401
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from pycocotools import mask as mask_utils

from mmbiformer.datasets.image_files import Labels
from mmbiformer.engine.data import check_data
from mmbiformer.engine.data_checks.files import File, open_file
from mmbiformer.engine.loading import check_loading
from mmbiformer.errors import UserError

CLASSES = ('cat', 'dog', 'owl')
HEIGHT, WIDTH = 48, 64


def write_coco(root: Path, num_images: int = 3) -> dict:
    """Write images and annotations with polygons and run-length encodings; the content."""
    rng = np.random.default_rng(0)
    (root / 'train').mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(num_images):
        name = f'{i}.{"png" if i % 2 else "jpg"}'
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(root / 'train' / name), pixels)
        images.append(dict(id=10 + i, file_name=name, height=HEIGHT, width=WIDTH))
        for k in range(3):
            x, y, w, h = 4 + 10 * k, 5 + 3 * (i % 9), 9, 12
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            mask = polygon
            if k == 2:
                mask = mask_utils.frPyObjects(polygon, HEIGHT, WIDTH)[0]
                mask = dict(size=mask['size'], counts=mask['counts'].decode())
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=10 + i,
                    category_id=5 + (i + k) % 3,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=mask,
                )
            )
    categories = [dict(id=5 + i, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'train.json').write_text(json.dumps(content))
    return content


def coco_config(root: Path, **options) -> Config:
    """A config of that data set, as far as the data check reads it."""
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ],
    )
    model = dict(bbox_head=dict(type='RetinaHead', num_classes=len(CLASSES)))
    loader = dict(dataset={**dataset, **options})
    return Config(dict(default_scope='mmdet', model=model, train_dataloader=loader))


VALUES = [
    *(None, True, False, 0, 1, -1, -5, 7, 0.5, 1e308, float('nan'), float('inf'), -float('inf')),
    *(10**400, '', 'x', '1', 'cat', 'dgo', '../../etc/passwd', '/etc/passwd', 'a\0b', '\ud800'),
    *('9' * 5000, [], {}, [[]], [1, 2], [0, 0, 0, 0], [1, 2, 3, 4, 5, 6], {'size': [1, 1]}),
    *(65536, 640.0, 2**31, 2**63, 5, 6, 7, 10, 11),
]


def mutate_content(rng: random.Random, content: dict) -> str:
    """Change something of annotations; says what."""
    parents = [content]
    for node in parents:  # grows while it is walked
        children = node.values() if isinstance(node, dict) else node
        parents += [x for x in children if isinstance(x, (dict, list)) and x]
    node = rng.choice(parents)
    key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    how = rng.choice(['replace', 'replace', 'remove', 'repeat', 'swap', 'nudge', 'rename'])
    if how == 'remove':
        del node[key]
    elif how == 'repeat' and isinstance(node, list):
        node.insert(rng.randrange(len(node)), node[key])
    elif how == 'swap' and isinstance(node, list):
        other = rng.randrange(len(node))
        node[key], node[other] = node[other], node[key]
    elif how == 'nudge' and type(node[key]) in (int, float):
        node[key] = node[key] * rng.choice([-1, 0, 1.5, 1000]) + rng.choice([0, 1, -1])
    elif how == 'rename' and isinstance(node, dict):
        node[rng.choice(['id', 'x', 'name', 'ignore', 'bbox_', 'category'])] = node.pop(key)
    else:
        how = 'replace'
        node[key] = rng.choice(VALUES)
    return f'{how} {key}'


def mutate_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Change some bytes of a file; says how."""
    how = rng.choice(['cut', 'cut', 'flip', 'flip', 'insert', 'delete', 'zero', 'append', 'web'])
    place = rng.randrange(max(len(content), 1))
    length = rng.choice([1, 4, 64])
    if how == 'cut':
        changed = content[:place]
    elif how == 'flip':
        changed = bytearray(content)
        for _ in range(length):
            changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        changed = bytes(changed)
    elif how == 'insert':
        changed = content[:place] + rng.randbytes(length) + content[place:]
    elif how == 'delete':
        changed = content[:place] + content[place + length :]
    elif how == 'zero':
        changed = content[:place] + bytes(length) + content[place + length :]
    elif how == 'append':
        changed = content + rng.choice([b'\n', bytes(9), content, b'x'])
    else:
        changed = rng.choice([b'', b'\n', b'<html>not found</html>', b'\xef\xbb\xbf' + content])
    return changed, f'{how} at {place}'


def judge_coco(cfg: Config) -> str:
    """'refused', or 'passed' where mmdet then loads all that the check did not speak of.

    Raises:
        AssertionError: If a label is not the category's, or an annotation is missing.
    """
    with DefaultScope.overwrite_default_scope('mmdet'):
        try:
            notices = check_data(cfg, ('train',))
        except UserError as error:
            assert '\n' not in str(error), error
            return 'refused'
        check_loading(cfg, ('train',))
        dataset = cfg.train_dataloader.dataset
        built = DATASETS.build(dataset)
        path = Path(dataset.data_root, dataset.ann_file)
        content = json.loads(path.read_text(encoding='utf-8'))
        names = {x['id']: x['name'] for x in content['categories']}
        expected, loaded = Counter(), Counter()
        for record in content['annotations']:
            if names[record['category_id']] in CLASSES:
                expected[record['image_id'], names[record['category_id']]] += 1
        for i in range(len(built)):
            info = built.get_data_info(i)
            for instance in info['instances']:
                loaded[info['img_id'], CLASSES[instance['bbox_label']]] += 1
            assert built[i]['inputs'].shape[-2:] == (HEIGHT, WIDTH)
        assert not loaded - expected, 'a label that is not the category'
        if expected - loaded:
            assert any('leaves them out' in x for x in notices), 'left out in silence'
    return 'passed'


def torture_coco(count: int, seed: int) -> Counter:
    """Judge mutated annotation files; how many were refused and passed.

    Raises:
        AssertionError: Names the mutation that got through, or ended in a traceback.
    """
    outcomes = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_coco(root)
        original = (root / 'train.json').read_bytes()
        for number in range(count):
            rng = random.Random(f'{seed} {number}')
            content, how = json.loads(original), []
            for _ in range(rng.choice([1, 1, 2, 3])):
                how.append(mutate_content(rng, content))
                if not content:
                    break
            text = json.dumps(content).encode()
            if rng.random() < 0.3:
                text, cut = mutate_bytes(rng, original)
                how = [cut]
            (root / 'train.json').write_bytes(text)
            try:
                outcomes[judge_coco(coco_config(root))] += 1
            except Exception as error:
                raise AssertionError(f'seed {seed}, file {number}: {how}: {error!r}') from error
    return outcomes


def write_pairs(root: Path) -> None:
    """Write images and label maps of three classes for mmseg, two of each."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'maps'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(2):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(root / f'images/{i}.jpg'), pixels)
        labels = rng.integers(0, len(CLASSES) + 1, (HEIGHT, WIDTH), np.uint8)
        labels[:4] = 255
        cv2.imwrite(str(root / f'maps/{i}.png'), labels)


def pairs_config(root: Path, **options) -> Config:
    """A config of that data set, in which 0 is no class."""
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=CLASSES),
        reduce_zero_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    model = dict(decode_head=dict(type='FPNHead', num_classes=len(CLASSES)))
    loader = dict(dataset={**dataset, **options})
    return Config(dict(default_scope='mmseg', model=model, train_dataloader=loader))


def mutate_image(rng: random.Random, path: Path) -> str:
    """Change an image or a label map on disk; says how."""
    is_map = path.parent.name == 'maps'
    how = rng.choice(['bytes'] * 4 + ['size', 'values', 'mode', 'other', 'missing', 'folder'])
    pixels = np.array(Image.open(path))
    if how == 'bytes':
        changed, how = mutate_bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    elif how == 'size':
        factor = rng.choice([2, 3])
        Image.fromarray(pixels[::factor] if rng.random() < 0.5 else pixels.swapaxes(0, 1)).save(
            path
        )
    elif how == 'values' and is_map:
        pixels[rng.randrange(HEIGHT), rng.randrange(WIDTH)] = rng.randrange(4, 255)
        Image.fromarray(pixels).save(path)
    elif how == 'mode' and is_map:
        if rng.random() < 0.5:
            cv2.imwrite(str(path), pixels.astype(np.uint16) + rng.choice([0, 256]))
        else:
            mode = rng.choice(['RGB', 'LA', 'RGBA'])
            Image.fromarray(pixels).convert(mode).save(path)
    elif how == 'other':
        Image.fromarray(pixels).save(path, format=rng.choice(['BMP', 'GIF', 'PNG', 'TIFF']))
    elif how == 'folder':
        path.unlink()
        path.mkdir()
    else:
        how = 'missing'
        path.unlink()
    return how


def judge_pair(cfg: Config, root: Path, name: str) -> str:
    """'refused' by the loading step, or 'passed' with the labels that the file has.

    Raises:
        AssertionError: If the full check passes what loading refuses, or labels are others.
    """
    maps = root / f'maps/{name}.png'
    labels = Labels(len(CLASSES), reduce_zero_label=True)
    problems = open_file(File(str(root / f'images/{name}.jpg'), None, str(maps), labels))
    dataset = cfg.train_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = DATASETS.build({**dataset, 'lazy_init': True})
        info = dict(img_path=str(root / f'images/{name}.jpg'), seg_map_path=str(maps))
        info.update(label_map=None, reduce_zero_label=True, seg_fields=[])
        try:
            packed = built.pipeline(info)
        except UserError as error:
            assert '\n' not in str(error) and str(root) in str(error), error
            assert problems, f'the full check passes it: {error}'
            return 'refused'
        found = packed['data_samples'].gt_sem_seg.data[0].numpy()
        raw = np.array(Image.open(maps)).astype(int)
        expected = np.where((raw == 0) | (raw == 255), 255, raw - 1)
        assert np.array_equal(found, expected), 'labels are not those of the file'
        assert set(np.unique(found)) <= {0, 1, 2, 255}, 'labels beyond the classes'
    return 'passed'


def torture_images(count: int, seed: int) -> Counter:
    """Judge mutated images and label maps; how many were refused and passed.

    Raises:
        AssertionError: Names the mutation that got through, or ended in a traceback.
    """
    outcomes = Counter()
    with tempfile.TemporaryDirectory() as folder:
        original, root = Path(folder, 'original'), Path(folder, 'copy')
        write_pairs(original)
        for number in range(count):
            rng = random.Random(f'{seed} {number}')
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(original, root)
            name = rng.choice('01')
            path = root / rng.choice([f'images/{name}.jpg', f'maps/{name}.png'])
            how = mutate_image(rng, path)
            cfg = pairs_config(root)
            check_loading(cfg, ('train',))
            try:
                outcomes[judge_pair(cfg, root, name)] += 1
            except Exception as error:
                what = f'seed {seed}, file {number}: {how} of {path.name}'
                raise AssertionError(f'{what}: {error!r}') from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--coco', type=int, default=10_000)
    parser.add_argument('--images', type=int, default=2_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    for what, torture, count in (
        ('annotation files', torture_coco, args.coco),
        ('images and label maps', torture_images, args.images),
    ):
        start = time.perf_counter()
        outcomes = torture(count, args.seed)
        seconds = time.perf_counter() - start
        print(f'{count:,} mutated {what}: {dict(outcomes)}, {seconds:.0f} s')


if __name__ == '__main__':
    main()
