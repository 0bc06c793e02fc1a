"""Writes reports: JSON, CSV, pictures and one HTML file."""

import io
import json
import os
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from mmbiformer import __version__
from mmbiformer.files import whole_or_absent

from ..detection.size_tables import report_csv
from ..report_data import DetectionReport, Report
from ..segmentation.segment_tables import segment_csv
from .drawing import Album, draw_worst_images
from .html_report import render_html, render_segment_html
from .report_json import report_json
from .size_pictures import draw_ap, draw_differences, draw_errors, draw_segments

NAMES = dict(
    json='size_ap.json',
    csv='size_ap.csv',
    html='size_ap.html',
    ap='size_ap.png',
    errors='size_ap_errors.png',
    differences='size_ap_differences.png',
)
SEGMENT_NAMES = {key: f'segment_sizes.{key}' for key in ('json', 'csv', 'html', 'png')}
TITLE = 'AP across object sizes'


def write_report(
    report: DetectionReport,
    out_dir: str | Path,
    *,
    image_dir: str | Path | None = None,
    explorer_dir: str | Path | None = None,
    title: str = TITLE,
    command: str | None = None,
) -> dict[str, Path]:
    """Write all files of a report on detectors; each is whole or not there.

    Args:
        report (DetectionReport): What :func:`size_report` returned.
        out_dir (str | Path): Made if needed. Files of an earlier report are replaced.
        image_dir (str | Path, optional): Where the images lie, for the worst ones.
        explorer_dir (str | Path, optional): Folder of routing explorers, named as the images;
            the worst ones link to theirs.
        title (str): Of the HTML page.
        command (str, optional): What made the report, for the JSON and HTML files.

    Returns:
        dict[str, Path]: 'json', 'csv', 'html', 'ap', 'errors' and, of several models,
        'differences'.
    """
    made = describe_making(command)
    figures = dict(ap=draw_ap(report), errors=draw_errors(report))
    if report.differences:
        figures['differences'] = draw_differences(report)
    album = draw_worst_images(report, image_dir)
    if explorer_dir is not None:
        album.explorers = _find_explorers(album, Path(explorer_dir), Path(out_dir))
    html = render_html(report, figures, album, title, made)
    texts = dict(json=_json(report, made), csv=report_csv(report), html=html)
    return _write_all(texts, figures, NAMES, out_dir)


def write_segment_report(
    report: Report, out_dir: str | Path, *, command: str | None = None
) -> dict[str, Path]:
    """Write 'json', 'csv', 'html' and 'png' of a report on segmenters, as :func:`write_report`."""
    made = describe_making(command)
    figure = draw_segments(report)
    html = render_segment_html(report, figure, made)
    texts = dict(json=_json(report, made), csv=segment_csv(report), html=html)
    return _write_all(texts, dict(png=figure), SEGMENT_NAMES, out_dir)


def describe_making(command: str | None) -> dict:
    """What a page says of how it was made: the command, the date and the version."""
    return dict(
        command=command,
        date=datetime.now().astimezone().isoformat(' ', 'minutes'),
        version=__version__,
    )


def _find_explorers(album: Album, explorer_dir: Path, out_dir: Path) -> dict[str, str]:
    names = {x.image.file_name for drawings in album.drawings.values() for x in drawings}
    files = {name: explorer_dir / f'{Path(name).stem}.html' for name in names - {None}}
    return {
        name: quote(Path(os.path.relpath(file, out_dir)).as_posix())
        for name, file in files.items()
        if file.is_file()
    }


def _json(report: Report, made: dict) -> str:
    return json.dumps(dict(made=made, **report_json(report)), indent=1, allow_nan=False)


def _write_all(
    texts: dict[str, str], figures: dict[str, Figure], names: dict[str, str], out_dir: str | Path
) -> dict[str, Path]:
    """Write texts and figures; those of an earlier report that this one lacks do not stay."""
    content = {key: text.encode() for key, text in texts.items()}
    for key, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, format='png', dpi=160)
        content[key] = file.getvalue()
    paths = {key: Path(out_dir, name) for key, name in names.items()}
    for key in names.keys() - content.keys():
        paths.pop(key).unlink(missing_ok=True)
    for key, path in paths.items():
        with whole_or_absent(path) as unfinished:
            unfinished.write_bytes(content[key])
    return paths
