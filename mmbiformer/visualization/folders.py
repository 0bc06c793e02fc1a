"""Routing statistics of a folder of images: collected, drawn and written."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from mmbiformer.engine.images import ImagePipeline
from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.formats.reading import read_ground_truth
from mmbiformer.figures import new_figure
from mmbiformer.files import whole_or_absent
from mmbiformer.tables import format_table

from .look import Box, look_at
from .pictures import OF_AFFINITY
from .routing_files import FORMATS, save_figure
from .statistics import BINS, ModuleStatistics

# Told apart by all who see colours differently (Okabe and Ito).
SMALL_OBJECTS, BACKGROUND = '#d55e00', '#0072b2'


def read_objects(annotations: str, paths: Sequence[Path]) -> dict[str, list[Box]]:
    """The boxes of a COCO annotation file, without crowds, by the names of image files.

    Raises:
        UserError: If it is no such file, or lacks an image.
    """
    truth = read_ground_truth(annotations)
    names = [Path(x['file_name']).name for x in truth.images]
    check_recorded_once(annotations, names, paths)
    objects: dict[str, list[Box]] = {name: [] for name in names}
    for image, box, is_crowd in zip(truth.image, truth.boxes, truth.crowd, strict=True):
        if not is_crowd:
            x, y, width, height = box.tolist()
            objects[names[image]].append((x, y, x + width, y + height))
    return objects


def check_recorded_once(annotations: str, names: Sequence[str], paths: Sequence[Path]) -> None:
    """Refuse ground truth that says nothing of an image, or more than once."""
    counts = Counter(names)
    missing = [x.name for x in paths if not counts[x.name]]
    if missing:
        raise UserError(
            f"'{annotations}' has no record of {len(missing)} of {len(paths)} images, as "
            f"'{missing[0]}': choose the file that belongs to them"
        )
    if twice := next((x.name for x in paths if counts[x.name] > 1), None):
        raise UserError(f"'{annotations}' has several images named '{twice}': rename all but one")


def collect(
    model: nn.Module,
    pipeline: ImagePipeline,
    paths: Sequence[Path],
    names: list[str] | None = None,
    objects: dict[str, list[Box]] | None = None,
) -> list[ModuleStatistics]:
    """Run a model over images and count what its routed attentions choose.

    Args:
        model (nn.Module): From :func:`mmbiformer.engine.images.load_model`.
        pipeline (ImagePipeline): Of the same config.
        paths (Sequence[Path]): Image files.
        names (list[str], optional): Modules to look into, all by default.
        objects (dict[str, list[Box]], optional): From :func:`read_objects`.

    Raises:
        UserError: If a file is no image, or the model has no such routed attention.
    """
    found: dict[str, ModuleStatistics] = {}
    for path in tqdm(paths, desc='routing', unit='image'):
        for placed in look_at(model, pipeline, str(path), names).maps:
            statistics = found.setdefault(placed.name, ModuleStatistics(placed.name))
            statistics.add(placed, objects[path.name] if objects else None)
    return list(found.values())


def write_statistics(modules: Sequence[ModuleStatistics], out_dir: Path) -> list[Path]:
    """Write the picture of :func:`draw_statistics`, and a JSON file of the numbers."""
    out_dir.mkdir(parents=True, exist_ok=True)
    figure = draw_statistics(modules)
    paths = [save_figure(figure, out_dir / f'routing_statistics.{kind}') for kind in FORMATS]
    paths.append(out_dir / 'routing_statistics.json')
    with whole_or_absent(paths[-1]) as unfinished:
        unfinished.write_text(json.dumps([x.summary() for x in modules], indent=1))
    return paths


def statistics_text(modules: Sequence[ModuleStatistics]) -> str:
    """A table with a row for each routed attention."""
    head = ['', 'distance', 'at random', 'entropy', 'at most', 'to itself']
    keys = 'distance', 'distance_at_random', 'entropy', 'entropy_at_most', 'routes_to_itself'
    summaries = [x.summary() for x in modules]
    if any(x.from_small[1] for x in modules):
        head += ['objects from small ones', 'from background']
        keys += 'objects_chosen_from_small_objects', 'objects_chosen_from_background'
    rows = [
        [x['name'], *('' if x[key] is None else f'{x[key]:.2f}' for key in keys)]
        for x in summaries
    ]
    return format_table(head, rows)


def draw_statistics(modules: Sequence[ModuleStatistics]) -> Figure:
    """How far, how evenly, and where objects are known how often to objects they route."""
    summaries = [x.summary() for x in modules]
    with_objects = any(x.from_small[1] for x in modules)
    height = max(4.2, 0.28 * len(modules) + 1.4)
    figure, axes = new_figure((15 if with_objects else 10.5, height), 1, 2 + with_objects)
    _draw_distances(axes[0], modules)
    rows = np.arange(len(modules))
    axes[1].barh(rows, [x['entropy'] for x in summaries], color=BACKGROUND)
    axes[1].plot([x['entropy_at_most'] for x in summaries], rows, 'k|', markersize=10)
    axes[1].set(xlabel='entropy of the choice, bits (marks: if all were chosen alike)')
    if with_objects:
        for key, colour, shift, label in (
            ('objects_chosen_from_small_objects', SMALL_OBJECTS, -0.2, 'from small objects'),
            ('objects_chosen_from_background', BACKGROUND, 0.2, 'from background'),
        ):
            shares = [np.nan if x[key] is None else x[key] for x in summaries]
            axes[2].barh(rows + shift, shares, 0.38, color=colour, label=label)
        axes[2].set(xlabel='share of chosen regions that have an object', xlim=(0, 1))
        axes[2].legend(fontsize=8)
    for axis in axes[1:]:
        axis.set_yticks(rows, [x['name'] for x in summaries], fontsize=7)
        axis.invert_yaxis()
    return figure


def _draw_distances(axis, modules: Sequence[ModuleStatistics]) -> None:
    """A curve for each size of map, the mean of its modules, and what chance would give."""
    places = (np.arange(BINS) + 0.5) / BINS
    by_stage = defaultdict(list)
    for module in modules:
        by_stage[module.name.rpartition('.')[0].rpartition('.')[0] or module.name].append(module)
    colours = colormaps[OF_AFFINITY](np.linspace(0, 0.85, len(by_stage)))
    for colour, (name, group) in zip(colours, by_stage.items(), strict=True):
        counts = sum(x.distances for x in group).numpy()
        label = f'{name}, {len(group)} blocks' if len(group) > 1 else name
        axis.plot(places, 100 * counts / counts.sum(), color=colour, label=label)
    counts = sum(x.any_distances for x in modules).numpy()
    axis.plot(places, 100 * counts / counts.sum(), 'k:', label='at random')
    axis.set(xlabel='distance of routed regions, of the diagonal', ylabel='% of pairs')
    axis.legend(fontsize=8)
