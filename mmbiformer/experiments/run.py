"""Trainings with their evaluations: what they are, and when they may be begun or gone on with."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmbiformer.checkpoints import list_checkpoints
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.engine import build_tester, build_trainer, load_config
from mmbiformer.errors import UserError
from mmbiformer.files import read_json, whole_or_absent

from .results import write_results

# The highest that numpy takes.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Training:
    """A training in a folder of its own, which is begun once and gone on with.

    Attributes:
        name (str): What it is called in reports and messages.
        config (str): The config file.
        seed (int): Of the initial weights, the order of the images and their flips.
        work_dir (Path): Folder of the logs, checkpoints and predictions.
        start (Pretraining, optional): The classifier whose backbone it starts from.
    """

    name: str
    config: str
    seed: int
    work_dir: Path
    start: 'Pretraining | None' = None

    @property
    def recipe(self) -> Path:
        """What the run was begun with."""
        return self.work_dir / 'recipe.json'

    @property
    def last_checkpoint(self) -> Path:
        """The file in which mmengine names the latest checkpoint."""
        return self.work_dir / 'last_checkpoint'

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
        content = {'seed': self.seed, **load_config(self.config).to_dict()}
        if self.start:
            content['start'] = json.loads(self.start.describe_recipe())
        return json.dumps(content, default=str, indent=1)

    def check(self, resume: bool) -> None:
        """Refuse to overwrite a run, or to resume one of another recipe: raises UserError."""
        if self.start:
            self.start.check(resume)
        recipe = self.describe_recipe()  # at once: it finds a missing config
        nearest = next(x for x in (self.work_dir, *self.work_dir.parents) if x.exists())
        if not nearest.is_dir():
            raise UserError(f"'{nearest}' is a file, not a folder: choose another --out-dir")
        if not self.work_dir.exists() or not any(self.work_dir.iterdir()):
            return
        remedy = f"remove '{self.work_dir}' or choose another --out-dir"
        if not resume:
            raise UserError(
                f"'{self.work_dir}' holds a run already: add --resume to keep or complete it, "
                f'{remedy}'
            )
        if read_json(self.recipe) != json.loads(recipe):
            raise UserError(
                f"'{self.work_dir}' was begun with another recipe than '{self.config}' with seed "
                f'{self.seed}, --resume cannot go on with it: {remedy}'
            )

    def train(self, data_root: str) -> str:
        """Train, or go on from the latest checkpoint; return the last checkpoint."""
        with whole_or_absent(self.recipe) as unfinished:
            unfinished.write_text(self.describe_recipe(), encoding='utf-8')
        resume = 'auto' if list_checkpoints(self.work_dir) else None
        pretrained = self.start.make_checkpoint() if self.start and not resume else None
        cfg = self.load_config(data_root)
        build_trainer(cfg, resume=resume, pretrained=pretrained).train()
        return self.last_checkpoint.read_text().strip()


class Run(Training):
    """The training of a detector, and the evaluation behind it."""

    @property
    def predictions(self) -> Path:
        """Detections in COCO's result format; the file appears when the run is complete."""
        return self.work_dir / 'validation.bbox.json'

    def evaluate(self, data_root: str, checkpoint: str) -> None:
        """Write the predictions of a checkpoint, which completes the run."""
        prefix = self.work_dir / 'validation'
        results = write_results(self.load_config(data_root), checkpoint, prefix)
        assert results.detections == {'bbox': str(self.predictions)}


class SegmentationRun(Run):
    """The training of a segmenter, and the evaluation behind it."""

    @property
    def predictions(self) -> Path:
        """The metrics, as JSON; the file appears when the run is complete."""
        return self.work_dir / 'validation.metrics.json'

    def evaluate(self, data_root: str, checkpoint: str) -> None:
        """Write the metrics of a checkpoint, which completes the run."""
        metrics = build_tester(self.load_config(data_root), checkpoint).test()
        with whole_or_absent(self.predictions) as unfinished:
            unfinished.write_text(json.dumps({key: float(x) for key, x in metrics.items()}))


class Pretraining(Training):
    """A classifier of single shapes, whose backbone detectors start from."""

    @property
    def accuracy(self) -> Path:
        """Its top-1 accuracy in %; the file appears when the classifier is complete."""
        return self.work_dir / 'top1.json'

    def make_checkpoint(self) -> str:
        """Train and evaluate it unless that is done; return its last checkpoint."""
        if not self.accuracy.is_file() or not self.last_checkpoint.is_file():
            data_root = str(make_single_shapes(self.work_dir.parent / 'single_shapes'))
            checkpoint = self.train(data_root)
            metrics = build_tester(self.load_config(data_root), checkpoint).test()
            with whole_or_absent(self.accuracy) as unfinished:
                unfinished.write_text(json.dumps(metrics['accuracy/top1']), encoding='utf-8')
        return self.last_checkpoint.read_text().strip()


def read_result(path: Path, kind: type) -> object:
    """What the JSON file of a complete run holds.

    Raises:
        UserError: If the file is missing, or what it holds is not of this type.
    """
    content = read_json(path)
    if not isinstance(content, kind):
        raise UserError(f"'{path}' is missing or broken: remove it, then --resume makes it again")
    return content


def check_runs(runs: Sequence[Run], seeds: Sequence[int], resume: bool) -> None:
    """Refuse what could not be completed, before anything is made.

    Raises:
        UserError: If seeds are not different ones from 0 to `MAX_SEED`, or a run may not be begun
            or gone on with; see :meth:`Training.check`.
    """
    if len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > MAX_SEED:
        given = ' '.join(str(seed) for seed in seeds)
        raise UserError(f'--seeds {given}: give different numbers, 0 or more, up to {MAX_SEED}')
    for run in runs:
        run.check(resume)


def complete(runs: Sequence[Run], data_root: Path) -> None:
    """Train and evaluate, one after the other, what is not complete; prints how it gets on."""
    for number, run in enumerate(runs, 1):
        title = f'run {number} of {len(runs)}, {run.name} with seed {run.seed}'
        if run.predictions.is_file():
            print(f'{title}: is there', flush=True)
            continue
        print(f'{title}: begins', flush=True)
        start = time.perf_counter()
        run.evaluate(str(data_root), run.train(str(data_root)))
        print(f'{title}: took {(time.perf_counter() - start) / 60:.1f} minutes', flush=True)
