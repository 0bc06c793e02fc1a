"""Attentions in one layout, trained under one recipe: AP by size, and mIoU."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.tables import format_table

from .run import Run, SegmentationRun, check_runs, complete, read_result
from .size_comparison import report_by_size

SHAPES = dict(image_size=160, octaves=True, num_train=800, num_val=200)
METRICS = ('mIoU', 'mAcc', 'aAcc')


def ablate(
    detectors: Mapping[str, str],
    segmenters: Mapping[str, str],
    seeds: Sequence[int],
    out_dir: str,
    resume: bool,
) -> str:
    """Make the data, train and evaluate every config with every seed, and report.

    Args:
        detectors, segmenters (Mapping[str, str]): Name in the tables -> config file. The detectors
            are compared with the first.
        seeds (Sequence[int]): Seeds of the trainings; the data are the same for all.
        out_dir (str): Everything goes there.
        resume (bool): Keep the finished runs in that folder and go on with the unfinished ones
            from their latest checkpoints.

    Returns:
        str: The report by size of each seed and over several, the table of segmentation, and
        where the files lie.

    Raises:
        UserError: See :func:`mmbiformer.experiments.run.check_runs`.
    """
    folder = Path(out_dir)
    kinds = {'detection': (Run, detectors), 'segmentation': (SegmentationRun, segmenters)}
    runs = {
        task: [
            kind(_title(task, name), config, seed, folder / task / f'{name}_seed{seed}')
            for seed in seeds
            for name, config in configs.items()
        ]
        for task, (kind, configs) in kinds.items()
    }
    every = [run for group in runs.values() for run in group]
    check_runs(every, seeds, resume)
    data_root = make_shapes(folder / 'shapes', **SHAPES)
    # Seed by seed, so that a stop leaves whole seeds behind.
    complete(sorted(every, key=lambda run: list(seeds).index(run.seed)), data_root)

    text = report_by_size(
        data_root / 'annotations/instances_validation.json',
        data_root / 'images/validation',
        _results_by_name('detection', runs, detectors),
        seeds,
        folder,
        'Ablation of attentions',
    )
    metrics = {
        name: [read_result(path, dict) for path in paths]
        for name, paths in _results_by_name('segmentation', runs, segmenters).items()
    }
    return f'{text}\n\n{segmentation_text(metrics, seeds)}'


def _title(task: str, name: str) -> str:
    return f'{task} by {name}'


def _results_by_name(
    task: str, runs: Mapping[str, Sequence[Run]], names: Iterable[str]
) -> dict[str, list[Path]]:
    """The results of a task's models, in the order of seeds, which is that of the runs."""
    return {
        name: [run.predictions for run in runs[task] if run.name == _title(task, name)]
        for name in names
    }


def segmentation_text(metrics: Mapping[str, Sequence[dict]], seeds: Sequence[int]) -> str:
    """A table of the metrics in per cent, with standard deviations over several seeds."""
    rows = []
    for name, of_seeds in metrics.items():
        columns = [[values[metric] for values in of_seeds] for metric in METRICS]
        rows.append([name, *map(_mean_text, columns)])
    numbers = ', '.join(map(str, seeds))
    note = 'mean and standard deviation over trainings' if len(seeds) > 1 else 'of one training'
    return f'Segmentation, seeds {numbers}\n{format_table(["model", *METRICS], rows)}\n{note}'


def _mean_text(values: Sequence[float]) -> str:
    text = f'{mean(values):.1f}'
    return f'{text} ± {stdev(values):.1f}' if len(values) > 1 else text
