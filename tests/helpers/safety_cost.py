"""What the hooks and checks cost a run, by the clock: for an idle machine.

python tests/helpers/safety_cost.py

Trains BiFormer-S with Semantic FPN at 512 x 512, one image a step, on generated images, and times
what the hooks and the checked loading add to a step. Saves its checkpoint in turns with and
without the backend of this package. Checks data of the size of COCO's training set, as a run does
before it begins.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from PIL import Image
from toolbox import CONFIGS, IN_PROCESS

from mmbiformer.datasets.loading import LoadChecked
from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.engine import build_trainer, load_config
from mmbiformer.engine.data import check_data
from mmbiformer.hooks import ExactResumeHook, SafeStopHook, numbered_batches
from mmbiformer.hooks.checkpoint_hook import BACKEND
from mmbiformer.tables import format_table

STEPS, SAVES = 16, 9
COCO_IMAGES, COCO_OBJECTS = 118_287, 860_001


class Clock:
    """Seconds in functions, without those in others that it times within them."""

    def __init__(self) -> None:
        self.seconds = defaultdict(list)
        self.within = [0.0]

    def time(self, owner: object, name: str, part: str) -> None:
        """Time a function from now on, as a part of the cost."""
        setattr(owner, name, self.timed(getattr(owner, name), part))

    def timed(self, function: Callable, part: str) -> Callable:
        def run(*args, **kwargs):
            begin = time.perf_counter()
            self.within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - begin
                self.seconds[part].append(seconds - self.within.pop())
                self.within[-1] += seconds

        return run


def time_training(folder: Path) -> tuple[Runner, list[list[str]]]:
    """Train; returns the runner, and rows of what a step costs."""
    config = CONFIGS / 'fpn_biformer-s_8xb4-80k_ade20k-512x512.py'
    data_root = make_shapes(folder / 'shapes', num_train=8, num_val=1, image_size=512)
    options = dict(option.split('=') for option in IN_PROCESS)
    options = {key: json.loads(value.lower()) for key, value in options.items()}
    options |= {'train_dataloader.batch_size': 1, 'train_cfg.max_iters': STEPS}
    options |= {'train_cfg.val_interval': 10 * STEPS}
    cfg = load_config(
        str(config),
        work_dir=str(folder / 'run'),
        data_root=str(data_root),
        cfg_options=options,
    )
    clock = Clock()
    for hook in (SafeStopHook, ExactResumeHook):
        clock.time(hook, 'before_train_iter', 'hooks')
    clock.time(SafeStopHook, '_note_losses', 'hooks')
    clock.time(SafeStopHook, '_step', 'hooks')
    clock.time(OptimWrapper, 'step', 'others')
    clock.time(numbered_batches, 'seed_sample', 'hooks')
    clock.time(LoadChecked, 'transform', 'checked loading')
    runner = build_trainer(cfg)
    for transform in runner.train_dataloader.dataset.pipeline.transforms:
        if isinstance(transform, LoadChecked):
            transform.step = clock.timed(transform.step, 'others')
    clock.time(runner.train_loop, 'run_iter', 'steps')
    loader = runner.train_dataloader.dataset
    loader.__class__.__getitem__ = clock.timed(loader.__class__.__getitem__, 'images')
    runner.train()
    whole = sum(map(sum, clock.seconds.values())) / STEPS
    rows = []
    for part in ('hooks', 'checked loading'):
        seconds = sum(clock.seconds[part]) / STEPS
        rows.append([f'{part}, a step', f'{1e3 * seconds:.2f} ms', f'{seconds / whole:.2%}'])
    return runner, [['a step, image included', f'{1e3 * whole:.0f} ms', ''], *rows]


def time_saves(runner: Runner, folder: Path) -> list[list[str]]:
    """Save with mmengine's local backend and with ours, in turns."""
    took = defaultdict(list)
    for number in range(SAVES):
        for name, backend_args in (("mmengine's", None), ('crash-safe', dict(backend=BACKEND))):
            begin = time.perf_counter()
            runner.save_checkpoint(str(folder), f'{name}_{number}.pth', backend_args=backend_args)
            took[name].append(time.perf_counter() - begin)
            size = (folder / f'{name}_{number}.pth').stat().st_size
            (folder / f'{name}_{number}.pth').unlink()
    return [
        [f'a save of {size / 1e6:.0f} MB, {name}', f'{statistics.median(x):.2f} s', _range(x)]
        for name, x in took.items()
    ]


def time_check(folder: Path) -> list[list[str]]:
    """Check generated data of the size of COCO's training set."""
    write_coco(folder / 'coco')
    config = CONFIGS / 'mask-rcnn_biformer-s_fpn_1x_coco.py'
    cfg = load_config(str(config), work_dir=str(folder / 'run'), data_root=str(folder / 'coco'))
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        check_data(cfg, ('train',))
        took.append(time.perf_counter() - begin)
    size = (folder / 'coco/annotations/instances_train2017.json').stat().st_size
    text = f'check of {COCO_IMAGES:,} images and {COCO_OBJECTS:,} objects, {size / 1e6:.0f} MB'
    return [[text, f'{statistics.median(took):.1f} s', _range(took)]]


def write_coco(root: Path) -> None:
    """Images, all alike, and an annotation file with polygons of about the length of COCO's."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(0)
    images = root / 'train2017'
    images.mkdir(parents=True)
    (root / 'annotations').mkdir()
    width, height = 640, 480
    Image.new('RGB', (width, height)).save(root / 'one.jpg', quality=5)
    content = (root / 'one.jpg').read_bytes()
    records = []
    for number in range(1, COCO_IMAGES + 1):
        name = f'{number:012}.jpg'
        (images / name).write_bytes(content)
        records.append(dict(id=number, file_name=name, width=width, height=height))
    corners = rng.integers(0, (width // 2, height // 2), (COCO_OBJECTS, 2))
    extents = rng.integers(8, (width // 2, height // 2), (COCO_OBJECTS, 2))
    offsets = rng.random((COCO_OBJECTS, 24, 2))
    owners = rng.integers(1, COCO_IMAGES + 1, COCO_OBJECTS)
    categories = [
        dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], start=1)
    ]
    with open(root / 'annotations/instances_train2017.json', 'w') as file:
        head = json.dumps(dict(images=records, categories=categories))
        file.write(f'{head[:-1]}, "annotations": [')
        for i in range(COCO_OBJECTS):
            box = [*map(int, corners[i]), *map(int, extents[i])]
            points = np.round(corners[i] + offsets[i] * extents[i], 2).ravel().tolist()
            record = dict(segmentation=[points], area=box[2] * box[3] / 2, iscrowd=0, bbox=box)
            record |= dict(id=i + 1, image_id=int(owners[i]), category_id=i % 80 + 1)
            file.write(f'{"," * (i > 0)}{json.dumps(record)}')
        file.write(']}')


def _range(seconds: list[float]) -> str:
    return f'{min(seconds):.2f} to {max(seconds):.2f} s'


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder = Path(tempfile.mkdtemp(prefix='safety-cost-'))
    runner, rows = time_training(folder)
    rows += time_saves(runner, folder)
    rows += time_check(folder)
    shutil.rmtree(folder)
    print(format_table(['part', 'takes', 'share or range'], rows))


if __name__ == '__main__':
    main()
