"""From a source to files: predict on all its frames, draw and write."""

from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from mmbiformer.errors import UserError
from mmbiformer.stopping import forget, hold, release, requested

from .outputs import CocoResults, LabelMaps, Pictures, video
from .predictor import SCORE_THRESHOLD, Predictor
from .sources import Capture, ImageFiles, batches


def predict_source(
    predictor: Predictor,
    source: ImageFiles | Capture,
    out_dir: str | Path,
    *,
    batch_size: int = 1,
    score_threshold: float = SCORE_THRESHOLD,
    annotations: str | None = None,
) -> list[Path]:
    """Predict on all frames, and write pictures or a video, and COCO results or label maps.

    Ctrl-C and SIGTERM end a camera, whose files are then written.

    Args:
        predictor (Predictor): The model.
        source (ImageFiles | Capture): From :func:`open_source`.
        out_dir (str | Path): Folder for all files.
        batch_size (int): Frames in a batch, all of one size; slices, where the model slices.
        score_threshold (float): Draw what scores more; the results have all.
        annotations (str, optional): COCO file with the ids of the images, for a detector.

    Returns:
        list[Path]: What was written.

    Raises:
        UserError: If a file of the source would be replaced, or an image is none; then there are
            no results. If a video ends before its end, of whose frames before that all is written.
    """
    out_dir = Path(out_dir)
    _refuse_to_replace(source, out_dir)
    if predictor.task == 'detection':
        results = CocoResults(source, predictor.inferencer, annotations)
    elif annotations:
        raise UserError('--annotations is for detectors')
    else:
        reduces = predictor.metainfo['reduce_zero_label']
        results = LabelMaps(source, out_dir / 'labels', reduces)
    if isinstance(source, Capture):
        opened = video(out_dir / f'{source.name}.mp4', source.fps)
    else:
        opened = nullcontext(Pictures(out_dir / 'pictures'))
    if source.is_camera:
        hold()
    progress = tqdm(total=source.num_frames, desc='predict', unit='image')
    with opened as pictures, progress:
        for batch in batches(source, batch_size):
            inputs = [x.path or x.image for x in batch]
            predictions = predictor.predict(inputs, batch_size)
            for frame, prediction in zip(batch, predictions, strict=True):
                results.add(frame, prediction)
                pictures.add(frame, predictor.draw(frame.image, prediction, score_threshold))
            progress.update(len(batch))
            if source.is_camera and requested():
                break
    written = [pictures.path, *results.write(out_dir)]
    if source.is_camera:
        forget()
        release()
    if source.problem:
        raise UserError(source.problem)
    return written


def _refuse_to_replace(source: ImageFiles | Capture, out_dir: Path) -> None:
    """Outputs have the names of what they are of, and nothing is written over that."""
    if isinstance(source, ImageFiles):
        given = {x.resolve() for x in source.paths}
        written = {(out_dir / 'pictures' / x.name).resolve() for x in source.paths}
        written |= {(out_dir / 'labels' / f'{x.stem}.png').resolve() for x in source.paths}
    else:
        given = set() if source.is_camera else {Path(source.place).resolve()}
        written = {(out_dir / f'{source.name}.mp4').resolve()}
    if replaced := sorted(given & written):
        raise UserError(
            f"--out-dir '{out_dir}': '{replaced[0]}' would be replaced: choose another"
        )
