"""What the model of a checkpoint predicts and routes on a few images of the validation data."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from mmengine.visualization import Visualizer
from torch import nn

from mmbiformer.engine.data import check_data
from mmbiformer.engine.images import ImagePipeline, load_model
from mmbiformer.engine.loading import without_checks
from mmbiformer.engine.parts import iter_datasets
from mmbiformer.errors import UserError
from mmbiformer.visualization import Look, last_of_each_size, look_at, routed_modules
from mmbiformer.visualization.pictures import draw_query

from .records import RunRecord

NUM_PREDICTIONS, NUM_ROUTED = 4, 2
SCORE = 0.3  # from which detections are drawn: mm's own
SMALLEST = 320  # of a side: smaller images are enlarged, or letters would cover them


@dataclass
class Sample:
    """A picture of what a model does with an image.

    Attributes:
        kind (str): 'prediction' or 'routing'.
        pixels (np.ndarray): uint8 (H, W, 3) in BGR.
        caption (str): Which image it is, and what is seen.
    """

    kind: str
    pixels: np.ndarray
    caption: str


def draw_samples(run: RunRecord, device: str | None = None) -> Iterator[Sample]:
    """Predictions beside ground truth, and routing of a model that routes.

    Args:
        run (RunRecord): With its checkpoint.
        device (str, optional): As 'cuda:1'. Defaults to the accelerator, or the CPU without one.

    Raises:
        UserError: If there is no checkpoint, it does not fit, the data are missing, or a model
            is of no package that draws. What was drawn before an error was yielded.
    """
    if run.checkpoint is None:
        raise UserError('there is no checkpoint yet')
    cfg = run.cfg.copy()
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    if loader is None:
        raise UserError('the config has no validation data')
    if cfg.get('default_scope') not in DRAWN_BY:
        raise UserError('the config is of no mm package that draws what it predicts')
    cfg.val_dataloader = cfg.test_dataloader = loader
    # Test-time augmentation has its model around that of the config.
    cfg.model = cfg.model.get('module', cfg.model)
    check_data(cfg, ('val',))
    for dataset in iter_datasets(cfg, 'val'):
        dataset.pipeline = without_checks(dataset.pipeline)
    model = load_model(cfg, run.checkpoint, device)
    paths = []
    for sample, path in _predict(cfg, model):
        yield sample
        paths.append(path)
    if routed_modules(model):
        yield from _route(cfg, model, paths[:NUM_ROUTED])


def choose_evenly(total: int, number: int) -> list[int]:
    """Numbers of images that lie as far apart as can be, from the first to the last."""
    return sorted({round(x) for x in np.linspace(0, total - 1, min(number, total))})


def _predict(cfg: Config, model: nn.Module) -> Iterator[tuple[Sample, str]]:
    """Ground truth beside predictions, drawn by mm, and the path of each image."""
    scope = cfg.get('default_scope')
    draw, caption = DRAWN_BY[scope]
    with DefaultScope.overwrite_default_scope(scope), tempfile.TemporaryDirectory() as folder:
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        # Visualizers are global by name; this one has no back ends, and sends nothing anywhere.
        kind = dict(type=cfg.visualizer.type, name=f'samples of {folder}')
        visualizer = VISUALIZERS.build(kind)
        visualizer.dataset_meta = dataset.metainfo
        for number in choose_evenly(len(dataset), NUM_PREDICTIONS):
            with torch.no_grad():
                (sample,) = model.test_step(pseudo_collate([dataset[number]]))
            file = str(Path(folder, f'{number}.png'))
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            draw(visualizer, image, sample, file)
            name = Path(sample.img_path).name
            yield Sample('prediction', cv2.imread(file), f'{name}: {caption}'), sample.img_path


def _draw_beside(visualizer: Visualizer, image: np.ndarray, sample: object, file: str) -> None:
    visualizer.add_datasample('sample', image, sample, out_file=file)


def _draw_class(visualizer: Visualizer, image: np.ndarray, sample: object, file: str) -> None:
    visualizer.visualize_cls(image, sample, resize=SMALLEST, out_file=file)


DRAWN_BY = {
    'mmdet': (
        _draw_beside,
        f'left the ground truth, right the detections that score above {SCORE}',
    ),
    'mmseg': (_draw_beside, 'left the ground truth, right the prediction'),
    'mmpretrain': (_draw_class, 'ground truth and prediction, with its score'),
}


def _route(cfg: Config, model: nn.Module, paths: list[str]) -> Iterator[Sample]:
    """The regions and the attention of one query in each image, a row for each size of map."""
    pipeline = ImagePipeline(cfg)
    for path in paths:
        look = look_at(model, pipeline, path)
        (x, y), what = _choose_query(look)
        figure = draw_query(look, last_of_each_size(look.maps), x, y)
        caption = f'{Path(path).name}, the query at ({x:.0f}, {y:.0f}), {what}'
        yield Sample('routing', pixels_of(figure), caption)


def _choose_query(look: Look) -> tuple[tuple[float, float], str]:
    """A pixel worth a look, and why."""
    height, width = look.image.shape[:2]
    found = getattr(look.prediction, 'pred_instances', None)
    if found is not None and len(found):
        left, top, right, bottom = found.bboxes[found.scores.argmax()].tolist()
        x, y = (left + right) / 2, (top + bottom) / 2
        if 0 <= x < width and 0 <= y < height:
            return (x, y), 'the middle of the surest detection'
    return (width // 2, height // 2), 'the middle of the image'


def pixels_of(figure: Figure, dpi: int = 80) -> np.ndarray:
    """A figure as pixels, uint8 (H, W, 3) in BGR."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
