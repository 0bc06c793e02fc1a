"""Writing the report of runs: one HTML page that needs nothing else, and its pictures as PNG."""

import io
import shlex
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmbiformer.errors import UserError
from mmbiformer.evaluation.report.html_report import page_environment, svg_uri
from mmbiformer.evaluation.report.report_files import describe_making
from mmbiformer.files import whole_or_absent

from . import curves
from .records import RunRecord, read_run
from .samples import Sample, draw_samples
from .sections import make_sections

NAME = 'run_report'
LONGEST, QUALITY = 1400, 82  # of photos in the page: side in pixels, and of JPEG
FIGURES = dict(
    metrics=curves.draw_metrics,
    sizes=curves.draw_sizes,
    classes=curves.draw_classes,
    training=curves.draw_training,
    speed=curves.draw_speed,
)


def write_run_report(
    folders: Sequence[str | Path],
    out_dir: str | Path | None = None,
    *,
    device: str | None = None,
    command: str | None = None,
) -> tuple[Path, list[str]]:
    """Write the page of one run, or of several side by side.

    Args:
        folders (Sequence[str | Path]): Work folders, also of runs that are going on.
        out_dir (str | Path, optional): Defaults to 'run_report' in the one work folder, of several
            in 'work_dirs'. Pictures of an earlier report are replaced.
        device (str, optional): On which samples are computed. Defaults to the accelerator, or the
            CPU without one.
        command (str, optional): What made the report, to stand in it.

    Returns:
        tuple[Path, list[str]]: The page, and of each run that lacks samples why.

    Raises:
        UserError: If a folder is missing, or no run's.
    """
    runs = _name_apart([read_run(folder) for folder in folders])
    out_dir = Path(out_dir or (runs[0].folder if len(runs) == 1 else 'work_dirs') / Path(NAME))
    pictures = {key: drawn for key, draw in FIGURES.items() if (drawn := draw(runs))}
    samples, problems = {}, {}
    for run in runs:
        some = samples.setdefault(run.name, [])
        try:
            for sample in draw_samples(run, device):
                some.append(sample)
        except UserError as error:
            problems[run.name] = str(error)
        except Exception as error:  # models, data sets and visualizers of users raise anything
            problems[run.name] = ' '.join(f'{type(error).__name__}: {error}'.split())
    parts = make_sections(runs, pictures, samples, problems)
    environment = page_environment(Path(__file__).parent)
    environment.filters.update(svg_uri=svg_uri, jpeg_uri=jpeg_uri)
    page = environment.get_template('run_report.html.j2').render(
        title='Run report' if len(runs) > 1 else f'Run report: {runs[0].name}',
        runs=runs,
        parts=parts,
        sections=[(part.id, part.heading) for part in parts],
        made=describe_making(command),
    )
    content = {f'{NAME}_{key}.png': _png(drawn) for key, drawn in pictures.items()}
    content |= _sample_files(samples)
    for stale in set(out_dir.glob(f'{NAME}_*.png')) - {out_dir / name for name in content}:
        stale.unlink()
    for name, data in {**content, f'{NAME}.html': page.encode()}.items():
        with whole_or_absent(out_dir / name) as unfinished:
            unfinished.write_bytes(data)
    notices = [f'{name}: samples are missing, {reason}' for name, reason in problems.items()]
    return out_dir / f'{NAME}.html', notices


def report_at_end(runner: Runner) -> None:
    """Write the report of the run that a runner has finished, in its main process.

    What fails here is a warning that says how to make the report: the run itself went well.
    """
    if not is_main_process():
        return
    remedy = f'to make it again: python tools/report.py {shlex.quote(runner.work_dir)}'
    try:
        page, notices = write_run_report([runner.work_dir])
    except Exception as error:  # from a full disk to what a data set of the user's raises
        runner.logger.warning(f'no run report: {type(error).__name__}: {error}; {remedy}')
        return
    for notice in notices:
        runner.logger.warning(f'run report of {notice}; {remedy}')
    runner.logger.info(f'run report: {page}')


def jpeg_uri(pixels: np.ndarray) -> str:
    """An image in BGR as a data URI."""
    scale = LONGEST / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 'data:image/jpeg;base64,' + b64encode(content).decode()


def _name_apart(runs: list[RunRecord]) -> list[RunRecord]:
    """Runs whose folders have one name are called by their paths."""
    counts = Counter(run.name for run in runs)
    for run in runs:
        if counts[run.name] > 1:
            run.name = str(run.folder)
    return runs


def _png(picture: curves.Picture) -> bytes:
    file = io.BytesIO()
    picture.figure.set_layout_engine('none')  # it was laid out for the page, which takes seconds
    picture.figure.savefig(file, format='png', dpi=130)
    return file.getvalue()


def _sample_files(samples: dict[str, list[Sample]]) -> dict[str, bytes]:
    """Names, with the number of the run where there are several, and contents."""
    files = {}
    for i, some in enumerate(samples.values(), 1):
        run = f'_{i}' if len(samples) > 1 else ''
        numbers = Counter()
        for sample in some:
            numbers[sample.kind] += 1
            name = f'{NAME}{run}_{sample.kind}_{numbers[sample.kind]}.png'
            files[name] = cv2.imencode('.png', sample.pixels)[1].tobytes()
    return files
