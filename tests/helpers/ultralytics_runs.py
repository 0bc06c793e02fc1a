"""Running Ultralytics, and what it trains on in tests.

Where Ultralytics is missing, a test module that imports this is skipped.
"""

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

# An Ultralytics that is there and does not import is an error, and no reason to skip.
if find_spec('ultralytics') is None:
    pytest.skip('ultralytics is not installed: make test-ultralytics', allow_module_level=True)
YOLO = importlib.import_module('ultralytics').YOLO
CONFIGS = Path(__file__).parents[2] / 'configs/plugin/ultralytics'
needs_index = pytest.mark.skipif(
    not hasattr(importlib.import_module('ultralytics.nn.tasks'), 'Index'),
    reason='this Ultralytics is older than 8.3.59 and has no Index to take a level of a backbone',
)

# What every training is told: it stays small, takes a step at every batch and draws no pictures.
TRAINING = dict(
    **dict(imgsz=64, batch=4, nbs=4, workers=0, device='cpu', seed=0),
    **dict(warmup_epochs=0, plots=False, verbose=False),
)


def run_python(*arguments: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess:
    """Run a fresh Python; where ``check``, a failure shows what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def write_squares(root: Path, num_images: dict[str, int], image_size: int = 64) -> Path:
    """Write a data set in YOLO's format: bright squares of two classes on noise.

    Returns:
        Path: Its data file.
    """
    rng = np.random.default_rng(0)
    for split, count in num_images.items():
        for kind in ('images', 'labels'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 60, (image_size, image_size, 3), np.uint8)
            lines = []
            for label in range(2):
                side = int(rng.integers(8, 24))
                x, y = rng.integers(0, image_size - side, 2)
                image[y : y + side, x : x + side, label] = 255
                box = np.array([x + side / 2, y + side / 2, side, side]) / image_size
                lines.append(' '.join(map(str, [label, *box])))
            cv2.imwrite(str(root / f'images/{split}/{index}.png'), image)
            (root / f'labels/{split}/{index}.txt').write_text('\n'.join(lines))
    data = root / 'data.yaml'
    data.write_text(f'path: {root}\ntrain: images/train\nval: images/val\nnames: [blue, green]\n')
    return data
