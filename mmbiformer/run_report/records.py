"""Reading a work folder: what its runs logged, joined where one went on from another."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mmengine.config import Config

from mmbiformer.checkpoints import list_checkpoints
from mmbiformer.engine import load_config
from mmbiformer.engine.run_notes import NOTES
from mmbiformer.engine.runs import checkpoint_folder
from mmbiformer.errors import UserError
from mmbiformer.files import read_json

STAMP = re.compile(r'\d{8}_\d{6}')
# mmseg logs the scores of classes as a table alone.
CLASS_TABLE = re.compile(r'per class results:.*?\n\+[-+]+\n(\|.*?\n)\+[-+]+\n(.*?)\n\+', re.DOTALL)
NOT_METRICS = {'step', 'time', 'data_time'}


@dataclass
class Start:
    """One start of a program in a work folder: mmengine makes a folder for each.

    Attributes:
        folder (Path): Named by the time of the start.
        notes (dict): What :func:`write_notes` wrote; empty of a program that does not.
        training (list[dict]): What was logged of the training, by iteration.
        validations (list[Validation]): In their order.
        tested (dict, optional): Metrics of a finished test.
        classes (dict): Of the last evaluation, class -> score -> percent, where its log has it.
    """

    folder: Path
    notes: dict
    training: list[dict] = field(default_factory=list)
    validations: list['Validation'] = field(default_factory=list)
    tested: dict[str, float] | None = None
    classes: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def begun(self) -> str:
        """As '2026-11-22 19:19'."""
        return datetime.strptime(self.folder.name, '%Y%m%d_%H%M%S').strftime('%Y-%m-%d %H:%M')


@dataclass
class Validation:
    """Metrics of a validation.

    Attributes:
        step (int): As it was logged: an epoch or an iteration.
        iteration (int): The last one that was logged before it.
        metrics (dict[str, float]): By name.
    """

    step: int
    iteration: int
    metrics: dict[str, float]


@dataclass
class RunRecord:
    """All that a work folder tells of its training and tests.

    Attributes:
        name (str): The folder's.
        folder (Path): The work folder.
        cfg (Config): Of the latest training, or of the latest test without one.
        starts (list[Start]): In the order of time.
        training (list[dict]): What was logged, each iteration once: of the later start, where two
            have it.
        validations (list[Validation]): Likewise.
        joins (list[int]): Iterations at which a start went on from an earlier one.
        checkpoint (str | None): What the latest start tested, or the newest of the training.
        logged (datetime): When something was last logged.
    """

    name: str
    folder: Path
    cfg: Config
    starts: list[Start]
    training: list[dict]
    validations: list[Validation]
    joins: list[int]
    checkpoint: str | None
    logged: datetime

    @property
    def tests(self) -> list[Start]:
        """The starts that are finished tests."""
        return [start for start in self.starts if start.tested is not None]

    @property
    def notes(self) -> dict:
        """Of the latest start that left some."""
        return next((x.notes for x in reversed(self.starts) if x.notes), {})

    @property
    def unit(self) -> str:
        """What validations are counted in."""
        logger = self.cfg.get('default_hooks', {}).get('logger') or {}
        return 'epoch' if logger.get('log_metric_by_epoch', True) else 'iteration'

    @property
    def final_metrics(self) -> dict[str, float]:
        """Of the latest evaluation: a finished test, or the last validation."""
        if self.tests and self.tests[-1] is self._latest_evaluated:
            return self.tests[-1].tested
        return self.validations[-1].metrics if self.validations else {}

    @property
    def classes(self) -> dict[str, dict[str, float]]:
        """Scores by class that the log of the latest evaluation has."""
        latest = self._latest_evaluated
        return latest.classes if latest else {}

    @property
    def _latest_evaluated(self) -> Start | None:
        """The latest start that validated or finished a test."""
        for start in reversed(self.starts):
            if start.validations or start.tested is not None or start.classes:
                return start
        return None


def read_run(folder: str | Path) -> RunRecord:
    """Read the work folder of a run, which may have been stopped, gone on with, or be running.

    Raises:
        UserError: If there is no such folder, or no run of mmengine has logged in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is no folder: give the work folder of a run")
    stamps = sorted(x for x in folder.iterdir() if STAMP.fullmatch(x.name) and x.is_dir())
    starts = [_read_start(stamp) for stamp in stamps]
    configs = {start.folder: path for start in starts if (path := _find_config(start.folder))}
    if not configs:
        raise UserError(
            f"'{folder}' is not the work folder of a run: it has no folder YYYYMMDD_HHMMSS with a "
            'config, which mmengine makes there'
        )
    trained = [start.folder for start in starts if start.training and start.folder in configs]
    latest = trained[-1] if trained else list(configs)[-1]
    cfg = load_config(str(configs[latest]), work_dir=str(folder))
    training, validations, joins = _join(starts)
    logs = [x for stamp in stamps for x in (stamp, *stamp.rglob('*.json'), *stamp.glob('*.log'))]
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        cfg=cfg,
        starts=starts,
        training=training,
        validations=validations,
        joins=joins,
        checkpoint=_find_checkpoint(starts, cfg),
        logged=datetime.fromtimestamp(max(x.stat().st_mtime for x in logs)),
    )


def _find_config(start: Path) -> Path | None:
    """The config of a start, or the work folder's latest: LocalVisBackend alone writes the one."""
    own = start / 'vis_data/config.py'
    if own.is_file():
        return own
    return max(start.parent.glob('*.py'), key=lambda path: path.stat().st_mtime, default=None)


def _find_checkpoint(starts: list[Start], cfg: Config) -> str | None:
    latest = starts[-1].notes
    if latest.get('split') == 'test':
        return latest['checkpoint']
    return next(map(str, list_checkpoints(checkpoint_folder(cfg))), None)


def _read_start(folder: Path) -> Start:
    start = Start(folder, read_json(folder / NOTES) or {})
    name = f'{folder.name}.json'
    for row in _rows(folder / 'vis_data' / name):
        if 'iter' in row:
            start.training.append(row)
        else:
            before = start.training[-1]['step'] if start.training else 0
            start.validations.append(Validation(row['step'], before, _numbers(row)))
    tested = read_json(folder / name)
    start.tested = None if tested is None else _numbers(tested)
    log = folder / f'{folder.name}.log'
    if log.is_file():
        start.classes = _read_classes(log.read_text(encoding='utf-8', errors='replace'))
    return start


def _rows(path: Path) -> Iterator[dict]:
    """The lines of a log; a run that is going on or was killed may have written half of the last.

    Raises:
        UserError: If another line is damaged.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"'{path}', line {number} is damaged: remove it") from error


def _numbers(row: dict) -> dict[str, float]:
    return {k: x for k, x in row.items() if isinstance(x, int | float) and k not in NOT_METRICS}


def _read_classes(log: str) -> dict[str, dict[str, float]]:
    """The last table of classes in a log of mmseg's."""
    found = CLASS_TABLE.findall(log)
    if not found:
        return {}
    head, *rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in (found[-1][0].strip() + '\n' + found[-1][1]).splitlines()
    ]
    return {name: dict(zip(head[1:], map(float, cells), strict=True)) for name, *cells in rows}


def _join(starts: list[Start]) -> tuple[list[dict], list[Validation], list[int]]:
    """What starts logged as one training, and the iterations at which it went on."""
    training, validations, joins = [], [], []
    for start in starts:
        if not start.training:
            validations += start.validations
            continue
        first = start.training[0]['step']
        training = [row for row in training if row['step'] < first]
        validations = [x for x in validations if x.iteration < first]
        joins = [x for x in joins if x < first]
        if training:
            joins.append(first)
        training += start.training
        validations += start.validations
    return training, validations, joins
