"""mmdet's and mmseg's inferencers, with weights that fit in full and the classes of those."""

from collections.abc import Sequence

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer

from mmbiformer.engine.data_checks.classes import check_heads
from mmbiformer.engine.data_checks.findings import refuse_errors
from mmbiformer.engine.images import image_steps, load_model
from mmbiformer.errors import UserError

OPACITY = 0.5  # of segments, through which the picture is seen


def build_inferencer(cfg: Config, checkpoint: str, device: str | None) -> BaseInferencer:
    """The inferencer of a config's mm package, with the weights of a checkpoint.

    ``inferencer.model.dataset_meta`` has the ``classes`` of the checkpoint, else of the config,
    and their ``palette``; of a segmenter also ``reduce_zero_label``.

    Args:
        cfg (Config): Of a detector or a segmenter; changed in place.
        checkpoint (str): Of the whole model; every name and shape must fit.
        device (str, optional): As 'cuda:1'. Defaults to the accelerator, or the CPU without one.

    Raises:
        UserError: If the model or what it needs of the config is missing or does not fit.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        from mmdet.apis import DetInferencer as Inferencer
    elif scope == 'mmseg':
        from mmseg.apis import MMSegInferencer as Inferencer
    else:
        raise UserError(
            f'this config is of {scope or "no mm package"}: prediction takes detectors (mmdet) '
            'and segmenters (mmseg); classifiers are evaluated by tools/test.py'
        )
    if not cfg.get('visualizer'):
        raise UserError('the config has no visualizer, which draws the predictions: add one')
    steps = image_steps(cfg)
    model = load_model(cfg, checkpoint, device)
    classes = model.dataset_meta['classes']
    refuse_errors(check_heads(cfg, classes, f"the classes of '{checkpoint}'"))
    # Both inferencers read the pipeline here, within no wrapper of datasets.
    cfg.test_dataloader.dataset = dict(pipeline=steps)
    cfg.visualizer.vis_backends = None  # pictures are written by this package

    class StrictInferencer(Inferencer):
        """Where it differs: the base loads what fits, and takes default names for classes."""

        def _init_model(self, cfg, weights, device):
            model.cfg = cfg
            return model

        def _init_collate(self, cfg):
            return pseudo_collate  # which the base ends at, after a warning of a missing scope

    inferencer = StrictInferencer(cfg, checkpoint, device=device, show_progress=False)
    visualizer = inferencer.visualizer
    visualizer.dataset_meta = inferencer.model.dataset_meta
    if scope == 'mmseg':
        visualizer.alpha = OPACITY
        # mmseg's own sorts all pixels of a class as a Python list: seconds in a large picture.
        visualizer._get_center_loc = middle_of_longest_row
    return inferencer


def infer(
    inferencer: BaseInferencer, images: Sequence[str | np.ndarray], batch_size: int = 1
) -> list:
    """Data samples of images: files, or arrays (H, W, 3) with blue first."""
    samples = []
    for batch in inferencer.preprocess(list(images), batch_size=batch_size):
        # mmdet's has the images beside what the model takes.
        samples += inferencer.forward(batch if isinstance(batch, dict) else batch[1])
    return samples


def middle_of_longest_row(mask: np.ndarray) -> np.ndarray:
    """Where the name of a class stands: x and y of the middle of the row with most of its pixels.

    Args:
        mask (np.ndarray): (H, W), 1 where the class is.
    """
    y = (mask == 1).sum(axis=1).argmax()
    xs = np.flatnonzero(mask[y] == 1)
    return np.array([xs[len(xs) // 2], y])
