"""Detectors, trained under one recipe on objects of all sizes and compared."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.evaluation.detection.compare_seeds import compare_seeds, seeds_csv, seeds_text
from mmbiformer.evaluation.detection.size_tables import report_text
from mmbiformer.evaluation.judge_files import judge_files
from mmbiformer.evaluation.report.report_files import write_report
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import size_ranges
from mmbiformer.files import whole_or_absent

from .run import Pretraining, Run, check_runs, complete, read_result

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
    configs: Mapping[str, str],
    setting: str,
    seeds: Sequence[int],
    out_dir: str,
    resume: bool,
    starts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Make the data, train and evaluate every config with every seed, report AP across sizes.

    Args:
        configs (Mapping[str, str]): Name in the report -> config file.
        setting (str): One of `SETTINGS`.
        seeds (Sequence[int]): Seeds of the trainings; the data are the same for all.
        out_dir (str): Everything goes to the folder ``<out_dir>/<setting>``.
        resume (bool): Keep the finished runs in that folder and go on with the unfinished ones
            from their latest checkpoints. Flips behind a stop differ from those without it.
        starts (Mapping[str, str]): Name in the report -> config of a classifier. It is trained on
            single shapes with the detector's seed, and the detector starts from its backbone.

    Returns:
        str: The report of each seed, one over several seeds, and where their files lie.

    Raises:
        UserError: If seeds are not different ones from 0 on, or the folder holds one of these runs
            and is not to be resumed, or was begun with another recipe.
    """
    annotations, images, predictions = predict(configs, setting, seeds, out_dir, resume, starts)
    title = f'Size benchmark, setting {setting}'
    return report_by_size(annotations, images, predictions, seeds, Path(out_dir, setting), title)


def report_by_size(
    annotations: Path,
    images: Path,
    predictions: Mapping[str, Sequence[Path]],
    seeds: Sequence[int],
    folder: Path,
    title: str,
) -> str:
    """Write the report of each seed to ``<folder>/report_seed<n>``, and ``seeds.csv`` of several.

    Args:
        annotations, images, predictions: As :func:`predict` returns them.
        seeds (Sequence[int]): Of the predictions, in their order.
        folder (Path): Where the reports go.
        title (str): What the pages are called, without the seed.

    Returns:
        str: The tables, and where the files lie.
    """
    parts, reports = [], {}
    for position, seed in enumerate(seeds):
        models = {name: paths[position] for name, paths in predictions.items()}
        ranges = size_ranges('side', RANGES)
        report = judge_files(
            annotations, models, ranges, iou_type='bbox', may_be_empty=True, bootstrap=Bootstrap()
        )
        reports[seed] = report
        heading = f'{title}, seed {seed}'
        files = write_report(
            report, folder / f'report_seed{seed}', image_dir=images, title=heading
        )
        note = 'of one training each: intervals and marks are over images alone'
        parts.append(f'{heading}\n\n{report_text(report)}\n{note}\n\nreport    {files["html"]}')
    path = folder / 'seeds.csv'
    path.unlink(missing_ok=True)  # perhaps of other seeds
    if len(seeds) > 1:
        comparison = compare_seeds(reports)
        with whole_or_absent(path) as unfinished:
            unfinished.write_text(seeds_csv(comparison), encoding='utf-8')
        parts.append(f'{seeds_text(comparison)}\n\nof all seeds  {path}')
    return '\n\n'.join(parts)


def predict(
    configs: Mapping[str, str],
    setting: str,
    seeds: Sequence[int],
    out_dir: str,
    resume: bool,
    starts: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Path, Path, dict[str, list[Path]]]:
    """All of :func:`compare_detectors` but the report; arguments and errors are the same.

    Returns:
        tuple: The annotations of the validation images, their folder and, under the name of each
        config, the detections in them in COCO's result format, one file per seed, in the order of
        seeds (dict[str, list[Path]]).
    """
    folder = Path(out_dir, setting)
    runs = [
        Run(name, config, seed, folder / f'{name}_seed{seed}', _start(starts, name, seed, folder))
        for seed in seeds
        for name, config in configs.items()
    ]
    check_runs(runs, seeds, resume)
    data_root = make_shapes(
        folder / 'shapes', image_size=IMAGE_SIZE, octaves=True, **SETTINGS[setting]
    )
    complete(runs, data_root)
    for run in runs:
        if run.start:
            run.start.make_checkpoint()  # its accuracy may have been removed
            top1 = read_result(run.start.accuracy, float)
            print(
                f'{run.name} with seed {run.seed} starts from a classifier of {top1:.1f} % top-1'
            )
    predictions = {name: [run.predictions for run in runs if run.name == name] for name in configs}
    annotations = data_root / 'annotations/instances_validation.json'
    return annotations, data_root / 'images/validation', predictions


def _start(starts: Mapping[str, str], name: str, seed: int, folder: Path) -> Pretraining | None:
    """The classifier whose backbone a run starts from, if any."""
    if name not in starts:
        return None
    title = f'classifier_for_{name}'
    return Pretraining(title, starts[name], seed, folder / f'{title}_seed{seed}')
