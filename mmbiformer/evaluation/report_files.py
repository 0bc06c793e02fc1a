"""Writes the report of :func:`size_report`: JSON, CSV, pictures and one HTML file."""

import io
import json
import os
from datetime import datetime
from pathlib import Path

from matplotlib.figure import Figure

from mmbiformer import __version__

from .drawing import draw_worst_images
from .html_report import render_html
from .size_pictures import draw_ap, draw_differences, draw_errors
from .tables import report_csv

NAMES = dict(
    json='size_ap.json',
    csv='size_ap.csv',
    html='size_ap.html',
    ap='size_ap.png',
    errors='size_ap_errors.png',
    differences='size_ap_differences.png',
)
TITLE = 'AP across object sizes'


def write_report(
    report: dict,
    out_dir: str | Path,
    *,
    image_dir: str | Path | None = None,
    title: str = TITLE,
    command: str | None = None,
) -> dict[str, Path]:
    """Write all files of a report; each is whole or not there.

    Args:
        report (dict): What :func:`size_report` returned.
        out_dir (str | Path): Made if needed. Files of an earlier report are replaced.
        image_dir (str | Path, optional): Where the images lie, for the worst ones.
        title (str): Of the HTML page.
        command (str, optional): What made the report, for the JSON and HTML files.

    Returns:
        dict[str, Path]: 'json', 'csv', 'html', 'ap', 'errors' and, of several models,
        'differences'.
    """
    made = dict(
        command=command,
        date=datetime.now().astimezone().isoformat(' ', 'minutes'),
        version=__version__,
    )
    figures = dict(ap=draw_ap(report), errors=draw_errors(report))
    if report['differences']:
        figures['differences'] = draw_differences(report)
    album = draw_worst_images(report, image_dir)
    content = dict(
        json=json.dumps(dict(made=made, **report), indent=1, allow_nan=False).encode(),
        csv=report_csv(report).encode(),
        html=render_html(report, figures, album, title, made).encode(),
        **{key: _png(figure) for key, figure in figures.items()},
    )
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if 'differences' not in content:  # of an earlier report
        (folder / NAMES['differences']).unlink(missing_ok=True)
    paths = {key: folder / NAMES[key] for key in content}
    for key, path in paths.items():
        _replace(path, content[key])
    return paths


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=160)
    return file.getvalue()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
