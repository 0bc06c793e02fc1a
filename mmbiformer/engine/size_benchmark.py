"""Backbones of matched cost, trained under one recipe on objects of all sizes and compared."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.errors import UserError

from .config import load_config
from .results import write_results
from .runs import build_trainer

IMAGE_SIZE = 256
# Octaves of the side, in pixels; there are no larger objects.
RANGES = {
    '0-8': (0, 8),
    '8-16': (8, 16),
    '16-32': (16, 32),
    '32-64': (32, 64),
    '64-128': (64, 128),
}
# Numbers of images, over which the recipe goes a fixed number of times; the larger splits begin
# with the images of the smaller ones.
SETTINGS = {
    'small': dict(num_train=1200, num_val=200),
    'full': dict(num_train=4800, num_val=1000),
}


@dataclass(frozen=True)
class Run:
    """One training, and the evaluation behind it.

    Attributes:
        name (str): What the report calls the config.
        config (str): The config file.
        seed (int): Of the initial weights, the order of the images and their flips.
        work_dir (Path): Folder of the logs, checkpoints and predictions.
    """

    name: str
    config: str
    seed: int
    work_dir: Path

    @property
    def predictions(self) -> Path:
        """Detections in COCO's result format; the file appears when the run is complete."""
        return self.work_dir / 'validation.bbox.json'

    @property
    def recipe(self) -> Path:
        """What the run was begun with."""
        return self.work_dir / 'recipe.json'

    def load_config(self, data_root: str | None = None) -> Config:
        """The config with the run's seed and folder."""
        return load_config(
            self.config,
            work_dir=str(self.work_dir),
            data_root=data_root,
            # Visualizers are global by name: one of an earlier run would keep its own folder.
            cfg_options={
                'randomness.seed': self.seed,
                'visualizer.name': f'visualizer of {self.work_dir}',
            },
        )

    def describe_recipe(self) -> str:
        """The config and the seed as JSON, without what depends on the folder."""
        content = load_config(self.config).to_dict()
        return json.dumps({'seed': self.seed, **content}, default=str, indent=1)


def size_benchmark(
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
    # Now, not after the trainings, so that what is missing for the report is known at once.
    from mmbiformer.evaluation.detection.compare_seeds import compare_seeds, seeds_csv, seeds_text
    from mmbiformer.evaluation.detection.size_tables import report_text
    from mmbiformer.evaluation.judge_files import judge_files
    from mmbiformer.evaluation.report.report_files import replace_file, write_report
    from mmbiformer.evaluation.resampling import Bootstrap
    from mmbiformer.evaluation.sizes import size_ranges

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
        replace_file(path, seeds_csv(comparison).encode())
        parts.append(f'{seeds_text(comparison)}\n\nof all seeds  {path}')
    return '\n\n'.join(parts)


def predict(
    configs: Mapping[str, str], setting: str, seeds: Sequence[int], out_dir: str, resume: bool
) -> tuple[Path, Path, dict[str, list[Path]]]:
    """All of :func:`size_benchmark` but the report; arguments and errors are the same.

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
        _check(run, resume)
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
        _evaluate(run, str(data_root), _train(run, str(data_root)))
        print(f'{title}: took {(time.perf_counter() - start) / 60:.1f} minutes', flush=True)
    predictions = {name: [run.predictions for run in runs if run.name == name] for name in configs}
    annotations = data_root / 'annotations/instances_validation.json'
    return annotations, data_root / 'images/validation', predictions


def _check(run: Run, resume: bool) -> None:
    """Refuse to overwrite a run, or to go on with one of another recipe."""
    recipe = run.describe_recipe()  # at once: it finds a missing config before the data are made
    if not run.work_dir.exists() or not any(run.work_dir.iterdir()):
        return
    remedy = f"remove '{run.work_dir}' or choose another --out-dir"
    if not resume:
        raise UserError(
            f"'{run.work_dir}' holds a run already: add --resume to keep or complete it, {remedy}"
        )
    if not run.recipe.is_file() or run.recipe.read_text(encoding='utf-8') != recipe:
        raise UserError(
            f"'{run.work_dir}' was begun with another recipe than '{run.config}' with seed "
            f'{run.seed}, --resume cannot go on with it: {remedy}'
        )


def _train(run: Run, data_root: str) -> str:
    """Train, or go on from the latest checkpoint; return the last checkpoint."""
    run.work_dir.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(run.describe_recipe(), encoding='utf-8')
    latest = run.work_dir / 'last_checkpoint'
    resume = 'auto' if latest.is_file() else None
    build_trainer(run.load_config(data_root), resume=resume).train()
    return latest.read_text().strip()


def _evaluate(run: Run, data_root: str, checkpoint: str) -> None:
    """Write the predictions."""
    prefix = run.work_dir / 'validation'
    found = write_results(run.load_config(data_root), checkpoint, prefix)
    assert found.detections == {'bbox': str(run.predictions)}
