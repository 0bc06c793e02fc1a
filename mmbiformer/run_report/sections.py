"""The sections of a run report: what stands in each, for one run or several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmbiformer.tables import MISSING

from .curves import Picture
from .facts import (
    describe_duration,
    describe_progress,
    flatten,
    measure_speed,
    peak_memory,
    training_notes,
)
from .metric_tables import Table, score_tables, tests, validations
from .records import RunRecord
from .samples import Sample
from .scores import by_class, by_size, known, overall_names

HOW_TO_READ = (
    'A row for the last routed attention of each size of map: left the region of the query '
    '(dashed) and those it routes to, numbered by their affinity; right what its token attends '
    'to, in percent. tools/visualize_routing.py draws any query of any image.'
)


@dataclass
class Section:
    """A part of the page.

    Attributes:
        id (str): Within the page.
        heading (str): Its title.
        lines (list[str]): Sentences, one below another.
        pictures (list[Picture]): Figures.
        tables (list[Table]): Below them.
        samples (dict[str, list[Sample]]): Pictures of each run.
        texts (dict[str, str]): Long texts by what they are, folded up.
    """

    id: str
    heading: str
    lines: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def make_sections(
    runs: Sequence[RunRecord],
    pictures: dict[str, Picture],
    samples: dict[str, list[Sample]],
    problems: dict[str, str],
) -> list[Section]:
    """All sections that there is something to say in.

    Args:
        runs (Sequence[RunRecord]): Named differently.
        pictures (dict[str, Picture]): 'training', 'speed', 'metrics', 'sizes' and 'classes', as
            far as they are.
        samples (dict[str, list[Sample]]): Of each run, by its name.
        problems (dict[str, str]): Why a run has no samples, or not all.
    """

    def drawn(name: str) -> list[Picture]:
        return [pictures[name]] if name in pictures else []

    missing = [f'{name}: samples are missing, {reason}' for name, reason in problems.items()]
    predictions, routing = (_of_kind(samples, kind) for kind in ('prediction', 'routing'))
    if routing:
        about_routing = [HOW_TO_READ, *missing]
    else:
        about_routing = missing or ['No model here has routed attention.']
    tables = dict(
        metrics=[*validations(runs), *tests(runs)],
        sizes=score_tables(runs, [by_size(run) for run in runs], 'size'),
        classes=score_tables(runs, [by_class(run) for run in runs], 'class'),
    )
    sections = [
        Section('in-short', 'In short', [_summary(run) for run in runs]),
        Section('metrics', 'Metrics', [], drawn('metrics'), tables['metrics']),
        Section('sizes', 'Scores by size', [], drawn('sizes'), tables['sizes']),
        Section('classes', 'Scores by class', [], drawn('classes'), tables['classes']),
        Section('training', 'Training', [], drawn('training')),
        Section('predictions', 'Predictions', missing, samples=predictions),
        Section('routing', 'Routing', about_routing, samples=routing),
        Section('speed', 'Speed and memory', [], drawn('speed'), _speed(runs)),
        Section('notices', 'What the tools changed or said', _notices(runs)),
        Section(
            'configuration', 'Configuration', [], [], _differences(runs), texts=_configs(runs)
        ),
        Section('environment', 'Environment', [], [], _environment(runs)),
    ]
    return [x for x in sections if x.lines or x.pictures or x.tables or x.samples or x.texts]


def _of_kind(samples: dict[str, list[Sample]], kind: str) -> dict[str, list[Sample]]:
    chosen = {name: [x for x in some if x.kind == kind] for name, some in samples.items()}
    return {name: some for name, some in chosen.items() if some}


def _summary(run: RunRecord) -> str:
    parts = [f'{run.name}: {describe_progress(run)}']
    losses = [row['loss'] for row in run.training if 'loss' in row]
    if losses:
        parts.append(f'loss from {losses[0]:.4g} to {losses[-1]:.4g}')
    names = overall_names([run])
    if names and (value := known(run.final_metrics.get(names[0]))) is not None:
        parts.append(f'{names[0]} {value:.4g} in the last evaluation')
    if speed := measure_speed(run):
        parts.append(f'{describe_duration(speed.total)} of training')
    if run.joins:
        parts.append(f'resumed before iteration {", ".join(map(str, run.joins))}')
    return f'{"; ".join(parts)}. Last logged at {run.logged:%Y-%m-%d %H:%M}.'


def _speed(runs: Sequence[RunRecord]) -> list[Table]:
    columns = []
    for run in runs:
        notes, speed, memory = training_notes(run), measure_speed(run), peak_memory(run)
        if not speed:
            continue
        environment = notes.get('environment', {})
        on_cpu = notes.get('device') == 'cpu'
        columns.append(
            {
                'run': run.name,
                'device': environment.get('GPU 0') or notes.get('device', 'not recorded'),
                'processes': str(notes.get('processes', 'not recorded')),
                'images per process and iteration': str(
                    run.cfg.train_dataloader.get('batch_size', MISSING)
                ),
                'seconds per iteration, median': f'{speed.seconds:.3g}',
                'of them waiting for data': f'{100 * speed.waiting:.0f} %',
                'images per second': f'{speed.images:.3g}' if speed.images else MISSING,
                'training in all': describe_duration(speed.total),
                'peak memory of the GPU': f'{memory:,} MB'
                if memory
                else f'{MISSING}{", on the CPU" if on_cpu else ""}',
            }
        )
    if not columns:
        return []
    head, *rows = [[key, *(x[key] for x in columns)] for key in columns[0]]
    return [Table('Speed and memory of the training', head, rows)]


def _notices(runs: Sequence[RunRecord]) -> list[str]:
    lines = []
    for run in runs:
        name = f'{run.name}, ' if len(runs) > 1 else ''
        for start in run.starts:
            kind = start.notes.get('split')
            for notice in start.notes.get('notices', ()):
                lines.append(f'{name}{kind} of {start.begun}: {notice}.')
        if not any(start.notes for start in run.starts):
            lines.append(f'{name}not recorded: the run was begun by another program.')
    return lines or ['Nothing.']


def _differences(runs: Sequence[RunRecord]) -> list[Table]:
    """Of several runs, the settings that are not the same in all."""
    if len(runs) == 1:
        return []
    flat = [flatten(run.cfg.to_dict()) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [
        [name, *(one.get(name, MISSING) for one in flat)]
        for name in names
        if len({one.get(name) for one in flat}) > 1
    ]
    return [Table('Settings that differ', ['setting', *(run.name for run in runs)], rows)]


def _configs(runs: Sequence[RunRecord]) -> dict[str, str]:
    return {f'Config of {run.name}': run.cfg.pretty_text for run in runs}


def _environment(runs: Sequence[RunRecord]) -> list[Table]:
    places = [run.notes.get('environment', {}) for run in runs]
    names = dict.fromkeys(name for place in places for name in place)
    rows = [[name, *(place.get(name, MISSING) for place in places)] for name in names]
    head = ['', *(run.name for run in runs)]
    return [Table('Where the latest start of each run was', head, rows)] if rows else []
