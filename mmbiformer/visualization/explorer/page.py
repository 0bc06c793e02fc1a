"""The routing explorer: one HTML file of an image that needs nothing else."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from torch import Tensor

from mmbiformer.evaluation.report.html_report import page_environment
from mmbiformer.evaluation.report.report_files import describe_making
from mmbiformer.files import whole_or_absent

from ..look import Look, PlacedMap
from ..pictures import OF_AFFINITY, OF_ATTENTION
from .codes import encode
from .scene import Scene, Thing, check_truth, find_missed, predicted

JPEG_QUALITY = 85
FEW = colormaps['tab20'](range(20), bytes=True)[:, :3]  # colours, where a data set has none
MOST_PIXELS = 1600  # of the picture's longer side: a page shows no more


@dataclass
class View:
    """What one model routes and finds in the image of a page.

    Attributes:
        name (str): Of the model, for headings.
        look (Look): Of the image.
        meta (Mapping): 'classes' and 'palette', see :func:`mmbiformer.engine.images.load_model`.
    """

    name: str
    look: Look
    meta: Mapping


def write_explorer(
    path: Path,
    views: Sequence[View],
    truth: Scene | None = None,
    *,
    threshold: float = 0.3,
    max_bytes: int = 15_000_000,
) -> Path:
    """Write the routing explorer of an image.

    Args:
        path (Path): The HTML file; its stem is the title.
        views (Sequence[View]): One model, or two to be seen side by side.
        truth (Scene, optional): What is in the image.
        threshold (float): Least score of detections that are shown.
        max_bytes (int): Of the file, for each model. Queries and keys are rounded to fit.

    Returns:
        Path: The file.

    Raises:
        UserError: If the file would be larger however coarsely they are rounded.
    """
    image = views[0].look.image
    height, width = image.shape[:2]
    content = dict(
        image=dict(width=width, height=height, source=_picture(image)),
        colours=dict(attention=_colours(OF_ATTENTION), affinity=_colours(OF_AFFINITY)),
        models=[_describe(x, truth, threshold) for x in views],
        truth=None if truth is None else _describe_scene(truth, views[0].meta),
    )
    streams: list[bytes] = []
    left = max_bytes - len(_render(path.stem, content, views, [])) // len(views)
    for view, model in zip(views, content['models'], strict=True):
        _add_maps(model, view.look.maps, left, streams)
    with whole_or_absent(path) as unfinished:
        unfinished.write_bytes(_render(path.stem, content, views, streams))
    return path


def _render(title: str, content: dict, views: Sequence[View], streams: Sequence[bytes]) -> bytes:
    folder = Path(__file__).parent
    html = (
        page_environment(folder)
        .get_template('explorer.html.j2')
        .render(
            title=title,
            names=[x.name for x in views],
            style=(folder / 'explorer.css').read_text(),
            script=(folder / 'explorer.js').read_text(),
            # Within a script element nothing may look like its end.
            content=json.dumps(content, allow_nan=False).replace('<', '\\u003c'),
            streams=[_base64(x) for x in streams],
            made=describe_making(None),
        )
    )
    return html.encode()


def _describe(view: View, truth: Scene | None, threshold: float) -> dict:
    """A model for the page, but for what its maps are computed from."""
    found = predicted(view.look.prediction, view.meta['classes'], threshold)
    if truth:
        check_truth(truth, found, view.meta['classes'], view.name)
    return dict(
        name=view.name,
        threshold=threshold,
        maps=[_describe_map(x) for x in view.look.maps],
        found=_describe_scene(found, view.meta),
        missed=find_missed(truth.things, found.things) if truth else [],
    )


def _add_maps(
    model: dict, maps: Sequence[PlacedMap], max_bytes: int, streams: list[bytes]
) -> None:
    """Add to a model what its maps are computed from, in so many bytes of the page."""
    # Base64 takes 4 bytes for 3. Of steps, offsets and tags there are some for each map.
    size = sum(2 * 4 * 2 * x.routed.query.shape[-1] + 200 for x in maps)
    codes, model['error'] = encode([x.routed for x in maps], (max_bytes - 2 * size) * 3 // 4)
    for described, code in zip(model['maps'], codes, strict=True):
        described.update(
            stream=len(streams),
            dim=code.steps.shape[-1],
            steps=_array(code.steps, '<f4'),
            offsets=_array(code.offsets, '<f4'),
            padKey=None if code.pad_key is None else _array(code.pad_key, '<f4'),
            error=code.error,
        )
        streams.append(code.stream)


def _describe_map(placed: PlacedMap) -> dict:
    routed = placed.routed
    affinity = routed.affinity[0].gather(-1, routed.indices[0])
    weights = routed.routing_weights
    return dict(
        name=placed.name,
        rows=routed.size[0],
        columns=routed.size[1],
        keyRows=routed.key.shape[1],
        keyColumns=routed.key.shape[2],
        partitionFactor=routed.partition_factor,
        heads=routed.num_heads,
        topk=routed.indices.shape[-1],
        scale=placed.placement.scale,
        shift=placed.placement.shift,
        stride=placed.stride,
        indices=_array(routed.indices[0], '<u2'),
        affinity=_array(affinity, '<f4'),
        weights=None if weights is None else _array(weights[0], '<f4'),
    )


def _describe_scene(scene: Scene, meta: Mapping) -> dict:
    return dict(
        things=[_describe_thing(x) for x in scene.things],
        labels=None if scene.labels is None else _describe_labels(scene.labels, meta),
        text=scene.text,
    )


def _describe_thing(thing: Thing) -> dict:
    return dict(box=[round(x, 1) for x in thing.box], label=thing.label, score=thing.score)


def _describe_labels(labels: np.ndarray, meta: Mapping) -> dict:
    """A label map in the colours of its data set, and which classes it has, the largest first."""
    height, width = labels.shape
    scale = min(1, MOST_PIXELS / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    shown = cv2.resize(labels.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    palette = meta['palette']
    if palette == 'random':
        palette = [FEW[i % len(FEW)] for i in range(len(meta['classes']))]
    palette = np.array(palette, np.uint8)
    is_class = shown < len(palette)
    colours = palette[np.where(is_class, shown, 0)]
    picture = np.dstack([colours[..., ::-1], 255 * is_class.astype(np.uint8)])
    numbers, counts = np.unique(labels[labels < len(palette)], return_counts=True)
    order = np.argsort(-counts)
    classes = [
        dict(
            name=meta['classes'][i],
            colour='#' + bytes(palette[i]).hex(),
            share=count / labels.size,
        )
        for i, count in zip(numbers[order].tolist(), counts[order].tolist(), strict=True)
    ]
    return dict(source=_encode_picture(picture, '.png'), classes=classes)


def _picture(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    scale = min(1, MOST_PIXELS / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    picture = cv2.resize(image[..., ::-1], size, interpolation=cv2.INTER_AREA)
    return _encode_picture(picture, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def _encode_picture(picture: np.ndarray, suffix: str, options: Sequence[int] = ()) -> str:
    kind = dict(zip(('.jpg', '.png'), ('jpeg', 'png'), strict=True))[suffix]
    return f'data:image/{kind};base64,{_base64(cv2.imencode(suffix, picture, options)[1])}'


def _colours(name: str) -> list[str]:
    return ['#' + bytes(x[:3]).hex() for x in colormaps[name](range(256), bytes=True)]


def _array(values: Tensor, kind: str) -> str:
    return _base64(values.cpu().float().numpy().astype(kind).tobytes())


def _base64(content: bytes | np.ndarray) -> str:
    return b64encode(content).decode()
