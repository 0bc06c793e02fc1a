"""A trained model and an image beside any data set."""

import contextlib

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor, nn

from mmbiformer.datasets.image_files import image_problem
from mmbiformer.errors import UserError

from .building import explain
from .parts import iter_datasets, type_name
from .weights import check_exists, load_weights

LOADS_IMAGE = 'LoadImageFromFile'


def load_model(cfg: Config, checkpoint: str, device: str | None = None) -> nn.Module:
    """The model of a config with the weights of a checkpoint, ready for evaluation.

    Args:
        cfg (Config): From :func:`load_config`.
        checkpoint (str): Of the whole model; every name and shape must fit.
        device (str, optional): As 'cuda:1'. Defaults to the accelerator, or the CPU without one.

    Returns:
        nn.Module: With ``dataset_meta``: the 'classes' of the checkpoint, else of the config's
        data set; their 'palette', or 'random'; of a segmenter also 'reduce_zero_label'.

    Raises:
        UserError: If the model cannot be built, the checkpoint is missing or does not fit, or
            nothing names the classes.
    """
    check_exists(checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        try:
            model = MODELS.build(cfg.model)
        except Exception as error:  # what builds parts raises anything
            raise explain(error) or error from error
    model = revert_sync_batchnorm(model).eval()
    meta = load_weights(model, checkpoint).get('meta') or {}
    model.dataset_meta = _dataset_meta(cfg, meta.get('dataset_meta') or {})
    try:
        return model.to(device or get_device())
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises the latter
        raise UserError(f"device '{device}' cannot be used: {error}") from error


def _dataset_meta(cfg: Config, trained: dict) -> dict:
    """What the config's data set says, with the classes that a checkpoint was trained on."""
    dataset = next(iter_datasets(cfg, 'test'), None)
    own = {} if dataset is None else _own_meta(dataset, cfg.get('default_scope'))
    classes = trained.get('classes') or own.get('classes')
    if not classes:
        raise UserError(
            'neither the checkpoint nor the config names classes: set '
            'test_dataloader.dataset.metainfo.classes'
        )
    palettes = (x for x in (own.get('palette'), trained.get('palette')) if x)
    palette = next((x for x in palettes if len(x) >= len(classes)), 'random')
    return {**own, 'classes': tuple(classes), 'palette': palette}


def _own_meta(dataset: ConfigDict, scope: str | None) -> dict:
    """The metainfo that mm gives a data set, which needs no file of it."""
    with DefaultScope.overwrite_default_scope(scope):
        try:
            built = DATASETS.build({**dataset, 'lazy_init': True})
        except Exception as error:  # what builds parts raises anything
            raise explain(error) or error from error
    return {**built.metainfo, 'reduce_zero_label': getattr(built, 'reduce_zero_label', False)}


def image_steps(cfg: Config) -> list[dict]:
    """The steps of the test pipeline, without those that load annotations.

    Raises:
        UserError: If the pipeline does not begin by loading an image from a file.
    """
    dataset = next(iter_datasets(cfg, 'test'), {})
    steps = [x for x in dataset.get('pipeline', []) if not _loads_annotations(x)]
    if not steps or type_name(steps[0]) != LOADS_IMAGE:
        raise UserError(
            f'test_dataloader.dataset.pipeline must begin with {LOADS_IMAGE} to take images'
        )
    return steps


class ImagePipeline:
    """The test pipeline of a config, for one image file at a time.

    Args:
        cfg (Config): Of a detector, a segmenter or a classifier.

    Raises:
        UserError: If the pipeline does not load an image from a file.
    """

    def __init__(self, cfg: Config) -> None:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self.load, *self.steps = Compose(image_steps(cfg)).transforms

    def prepare(self, path: str) -> tuple[np.ndarray, dict]:
        """Load an image and do what the pipeline does.

        Returns:
            tuple: The image as it is in the file, uint8 (H, W, 3) in the order of cv2, and a batch
            of it for ``model.test_step``.

        Raises:
            UserError: If the file is missing or no whole image.
        """
        if problem := image_problem(path):
            raise UserError(f"'{path}' {problem}")
        loaded = self.load(dict(img_path=path, img_id=0))
        image = loaded['img'].copy()
        return image, pseudo_collate([self._transform(loaded)])

    def place(self, image: Tensor) -> Tensor:
        """What the geometry of the pipeline makes of values (H, W, C): (C, H', W').

        Interpolated linearly, whatever the pipeline takes for pictures, and in floats.
        """
        height, width = image.shape[:2]
        loaded = dict(img=image.numpy(), img_shape=(height, width), ori_shape=(height, width))
        loaded |= dict(img_path='', img_id=0)
        with contextlib.ExitStack() as changes:
            for step in self.steps:
                for name, value in dict(backend='cv2', interpolation='bilinear').items():
                    if hasattr(step, name):
                        changes.callback(setattr, step, name, getattr(step, name))
                        setattr(step, name, value)
            return self._transform(loaded)['inputs'].float()

    def _transform(self, loaded: dict) -> dict:
        for step in self.steps:
            loaded = step(loaded)
        return loaded


def _loads_annotations(step: dict) -> bool:
    return type_name(step).startswith('Load') and type_name(step) != LOADS_IMAGE
