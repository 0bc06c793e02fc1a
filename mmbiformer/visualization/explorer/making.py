"""From images and checkpoints to routing explorers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from tqdm import tqdm

from mmbiformer.datasets.image_files import list_images
from mmbiformer.engine import load_config
from mmbiformer.engine.images import ImagePipeline, load_model
from mmbiformer.errors import UserError
from mmbiformer.files import read_json

from ..look import look_at
from .page import View, write_explorer
from .scene import read_truth


@dataclass
class OpenModel:
    """A model that images are shown to.

    Attributes:
        name (str): Of its config and checkpoint, for headings.
        model (nn.Module): With its weights.
        pipeline (ImagePipeline): Of its config.
    """

    name: str
    model: nn.Module
    pipeline: ImagePipeline


def open_model(config: str, checkpoint: str, device: str | None = None) -> OpenModel:
    """Load a model for explorers.

    Raises:
        UserError: If config or checkpoint do not fit.
    """
    cfg = load_config(config)
    pipeline = ImagePipeline(cfg)
    model = load_model(cfg, checkpoint, device)
    return OpenModel(f'{Path(config).stem}, {checkpoint}', model, pipeline)


def find_images(path: str, image_dir: str | None = None) -> list[Path]:
    """An image file, the images of a folder, or the worst images of a size report.

    Args:
        path (str): The file, the folder, or ``size_ap.json``.
        image_dir (str, optional): Where the images of the size report are.

    Raises:
        UserError: If there are none, or ``image_dir`` is missing or for nothing.
    """
    is_report = path.endswith('.json')
    if is_report != (image_dir is not None):
        raise UserError('--image-dir is for the images of a size_ap.json: give both, or none')
    if not is_report:
        return list_images(path) if Path(path).is_dir() else [Path(path)]
    content = read_json(path)
    try:
        found = [
            Path(image_dir, image['file_name'])
            for model in content['models']
            for worst in model['worst_images']
            for image in worst
        ]
    except (KeyError, TypeError):
        raise UserError(
            f"'{path}' is missing, or no size_ap.json of images with file names"
        ) from None
    if not found:
        raise UserError(f"'{path}' has no worst images: its detectors make no errors")
    return list(dict.fromkeys(found))


def write_explorers(
    images: Sequence[Path],
    models: Sequence[OpenModel],
    out_dir: Path,
    *,
    annotations: str | None = None,
    names: list[str] | None = None,
    threshold: float = 0.3,
    max_size: float = 15,
) -> Iterator[Path]:
    """Write a page for each image, named as it is.

    Args:
        images (Sequence[Path]): Image files.
        models (Sequence[OpenModel]): One, or two to be seen side by side.
        out_dir (Path): Made where it is missing.
        annotations (str, optional): Ground truth, see :func:`read_truth`.
        names (list[str], optional): Modules to look into, all by default.
        threshold (float): Least score of detections that are shown.
        max_size (float): Of a page in MB, for each model.

    Yields:
        Path: The pages, as they are written.

    Raises:
        UserError: If a file is no image, a page would be larger, a model has no routed attention,
            the ground truth does not fit, or the threshold is no score.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f'--score-threshold {threshold:g}: choose from 0 to 1')
    ((stem, count),) = Counter(x.stem for x in images).most_common(1)
    if count > 1:
        raise UserError(f"two images are named '{stem}': rename one, or give one after the other")
    truth = {}
    if annotations:
        truth = read_truth(annotations, images, models[0].model.dataset_meta)
    for path in tqdm(images, desc='explorers', unit='image', disable=len(images) == 1):
        views = [
            View(x.name, look_at(x.model, x.pipeline, str(path), names), x.model.dataset_meta)
            for x in models
        ]
        yield write_explorer(
            out_dir / f'{path.stem}.html',
            views,
            truth.get(path.name),
            threshold=threshold,
            max_bytes=int(max_size * 1e6),
        )
