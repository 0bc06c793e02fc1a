"""Detectors, trained under one recipe on objects of all sizes and compared."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.compare_seeds import compare_seeds, seeds_csv, seeds_text
from mmbiformer.evaluation.detection.size_tables import report_text
from mmbiformer.evaluation.judge_files import judge_files
from mmbiformer.evaluation.report.report_files import write_report
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges
from mmbiformer.files import whole_or_absent

from .run import Run

IMAGE_SIZE = 256
# Octaves of the side, in pixels; there are no larger objects.
RANGES = {f'{low}-{high}': (low, high) for low, high in pairwise((0, 8, 16, 32, 64, 128))}
# Numbers of images, over which the recipe goes a fixed number of times; the larger splits begin
# with the images of the smaller ones.
SETTINGS = {
    'small': dict(num_train=1200, num_val=200),
    'full': dict(num_train=4800, num_val=1000),
}


def compare_detectors(
    configs: Mapping[str, str], setting: str, seeds: Sequence[int], out_dir: str, resume: bool
) -> str:
    """Make the data, train and evaluate every config with every seed, report AP across sizes.

    Args:
        configs (Mapping[str, str]): Name in the report -> config file.
        setting (str): One of `SETTINGS`.
        seeds (Sequence[int]): Seeds of the trainings; the data are the same for all.
        out_dir (str): Everything goes to the folder ``<out_dir>/<setting>``.
        resume (bool): Keep the finished runs in that folder and go on with the unfinished ones
            from their latest checkpoints. Flips behind a stop differ from those without it.

    Returns:
        str: The report of each seed, one over several seeds, and where their files lie.

    Raises:
        UserError: If seeds are not different ones from 0 on, or the folder holds one of these runs
            and is not to be resumed, or was begun with another recipe.
    """
    annotations, images, predictions = predict(configs, setting, seeds, out_dir, resume)
    parts, reports = [], {}
    for position, seed in enumerate(seeds):
        models = {name: paths[position] for name, paths in predictions.items()}
        ranges = size_ranges('side', RANGES)
        report = judge_files(
            annotations, models, ranges, iou_type='bbox', may_be_empty=True, bootstrap=Bootstrap()
        )
        reports[seed] = report
        folder = Path(out_dir, setting, f'report_seed{seed}')
        title = f'Size benchmark, setting {setting}, seed {seed}'
        files = write_report(report, folder, image_dir=images, title=title)
        note = 'of one training each: intervals and marks are over images alone'
        parts.append(f'{title}\n\n{report_text(report)}\n{note}\n\nreport    {files["html"]}')
    path = Path(out_dir, setting, 'seeds.csv')
    path.unlink(missing_ok=True)  # perhaps of other seeds
    if len(seeds) > 1:
        comparison = compare_seeds(reports)
        with whole_or_absent(path) as unfinished:
            unfinished.write_text(seeds_csv(comparison), encoding='utf-8')
        parts.append(f'{seeds_text(comparison)}\n\nof all seeds  {path}')
    return '\n\n'.join(parts)


def predict(
    configs: Mapping[str, str], setting: str, seeds: Sequence[int], out_dir: str, resume: bool
) -> tuple[Path, Path, dict[str, list[Path]]]:
    """All of :func:`compare_detectors` but the report; arguments and errors are the same.

    Returns:
        tuple: The annotations of the validation images, their folder and, under the name of each
        config, the detections in them in COCO's result format, one file per seed, in the order of
        seeds (dict[str, list[Path]]).
    """
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        given = ' '.join(str(seed) for seed in seeds)
        raise UserError(f'--seeds {given}: give different numbers, 0 or more')
    folder = Path(out_dir, setting)
    runs = [
        Run(name, config, seed, folder / f'{name}_seed{seed}')
        for seed in seeds
        for name, config in configs.items()
    ]
    for run in runs:
        run.check(resume)
    data_root = make_shapes(
        folder / 'shapes', image_size=IMAGE_SIZE, octaves=True, **SETTINGS[setting]
    )
    for number, run in enumerate(runs, 1):
        title = f'run {number} of {len(runs)}, {run.name} with seed {run.seed}'
        if run.predictions.is_file():
            print(f'{title}: is there', flush=True)
            continue
        print(f'{title}: begins', flush=True)
        start = time.perf_counter()
        run.evaluate(str(data_root), run.train(str(data_root)))
        print(f'{title}: took {(time.perf_counter() - start) / 60:.1f} minutes', flush=True)
    predictions = {name: [run.predictions for run in runs if run.name == name] for name in configs}
    annotations = data_root / 'annotations/instances_validation.json'
    return annotations, data_root / 'images/validation', predictions
