"""Folders of label maps: what mmseg writes is read back, and every wrong file is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image
from toolbox import ROOT

from mmbiformer.errors import UserError
from mmbiformer.evaluation.segmentation.segment_files import count_folders
from mmbiformer.evaluation.segmentation.segment_report import summarise
from mmbiformer.evaluation.segmentation.segment_sizes import (
    count_segments,
    find_segments,
    scores,
    segment_ranges,
)

SAMPLES = Path(os.environ.get('MMBIFORMER_SAMPLES', ROOT.parent / 'shared/data'))
RANGES = segment_ranges()
NUM_CLASSES = 3


def save(folder, **maps):
    folder.mkdir(exist_ok=True)
    for name, labels in maps.items():
        Image.fromarray(np.asarray(labels, np.uint8)).save(folder / f'{name}.png')
    return folder


@pytest.fixture
def folders(tmp_path):
    """Ground truth and predictions of two images of different sizes."""
    labels = dict(a=[[0, 0, 1], [0, 255, 1]], b=[[2, 2], [2, 2], [1, 1]])
    prediction = dict(a=[[0, 1, 1], [0, 1, 1]], b=[[2, 2], [2, 2], [1, 2]])
    return save(tmp_path / 'gt', **labels), save(tmp_path / 'pred', **prediction)


def run(gt, *preds, num_classes=NUM_CLASSES, **options):
    return count_folders(gt, preds, num_classes, RANGES, **options)


def same(counts, others):
    return all(np.array_equal(x, getattr(others, name)) for name, x in vars(counts).items())


def test_every_image_is_counted_for_every_model(folders):
    gt, pred = folders
    model, perfect = run(gt, pred, gt)
    assert (model.path, perfect.path) == (str(pred), str(gt))
    assert model.counts.pixels[:, :, 0].tolist() == [[3, 2, 0], [0, 2, 4]]
    assert model.counts.correct[:, :, 0].tolist() == [[2, 2, 0], [0, 1, 4]]
    assert perfect.counts.correct[:, :, 0].tolist() == [[3, 2, 0], [0, 2, 4]]
    assert model.counts.ignored.tolist() == [1, 0]
    assert not model.notices and not perfect.notices


def test_reads_what_mmseg_writes(tmp_path):
    """With reduce_zero_label, as in ADE20K: files of classes from 1, and 0 for no class."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, NUM_CLASSES + 1, (2, 6, 8))
    raw[:, 0, 0] = 255
    predictions = rng.integers(0, NUM_CLASSES, (2, 6, 8))
    gt = save(tmp_path / 'gt', a=raw[0], b=raw[1])
    metric = IoUMetric(output_dir=str(tmp_path / 'pred'), format_only=True)
    metric.dataset_meta = dict(classes='xyz')
    for name, prediction in zip('ab', predictions, strict=True):
        sample = dict(
            pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
            img_path=f'{name}.jpg',
            reduce_zero_label=True,
        )
        metric.process({}, [sample])

    (found,) = run(gt, tmp_path / 'pred', reduce_zero_label=True)
    labels = np.where((raw == 0) | (raw == 255), 255, raw - 1)
    for i in range(2):
        expected = count_segments(predictions[i], find_segments(labels[i], NUM_CLASSES), RANGES)
        for key, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found.counts, key)[i], value, err_msg=key)
    assert found.counts.ignored.sum() == (labels == 255).sum() > 2
    assert not found.notices


def test_palettes_are_read_as_their_indices(folders):
    gt, pred = folders
    (expected,) = run(gt, pred)
    image = Image.open(pred / 'a.png').convert('P')
    image.putdata(np.array(Image.open(pred / 'a.png')).ravel().tolist())
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    image.save(pred / 'a.png')
    assert Image.open(pred / 'a.png').mode == 'P'
    (found,) = run(gt, pred)
    assert same(found.counts, expected.counts)


def test_zeros_in_predictions_are_reported(tmp_path):
    # Classes from 0, which reduce_zero_label takes for classes from 1.
    gt = save(tmp_path / 'gt', a=[[1, 1, 2, 3]])
    pred = save(tmp_path / 'pred', a=[[0, 0, 1, 2]])
    (found,) = run(gt, pred, reduce_zero_label=True)
    (notice,) = found.notices
    assert notice.startswith(f"'{pred}' has the label 0 or 255, no class, at 2 pixels")
    assert '2 pixels are predicted as no class' in str(
        summarise(found.counts, RANGES, 'xyz', notices=found.notices).notices
    )


def test_other_files_are_reported(folders):
    gt, pred = folders
    (gt / 'notes.txt').touch()
    for name in ('x.jpg', 'y.jpg'):
        (pred / name).touch()
    (found,) = run(gt, pred)
    assert found.notices == [
        f"'{gt}' has 'notes.txt' besides .png files; left out",
        f"'{pred}' has 'x.jpg' and 1 more besides .png files; left out",
    ]


def drop(folder, name):
    (folder / f'{name}.png').unlink()


def rewrite(folder, labels, name='a'):
    save(folder, **{name: labels})


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def colour(path):
    Image.open(path).convert('RGB').save(path)


def wide(path):
    Image.fromarray(np.ones((2, 3), np.uint16)).save(path)


def jpeg(path):
    Image.open(path).save(path, format='JPEG')


WRONG = {
    'no prediction': (
        lambda gt, pred: drop(pred, 'b'),
        "'{pred}' lacks 'b.png' of the 2 in '{gt}': finish the test, or leave no more ground "
        'truth than there are predictions',
    ),
    'no ground truth': (
        lambda gt, pred: [rewrite(pred, [[0]], name) for name in ('x', 'y')],
        "'{pred}' has 'x.png' and 1 more without ground truth in '{gt}': are they of another "
        'data set or split?',
    ),
    'another data set': (
        lambda gt, pred: [drop(gt, 'a'), drop(gt, 'b'), rewrite(gt, [[0]], 'c')],
        "'{pred}' has 'a.png' and 1 more without ground truth",
    ),
    'size': (
        lambda gt, pred: rewrite(pred, [[0, 0, 1]]),
        "'{pred}/a.png': the prediction has 1 x 3 pixels (height x width), its ground truth "
        '2 x 3: ',
    ),
    'truncated': (
        lambda gt, pred: cut(pred / 'b.png', 0.7),
        "'{pred}/b.png' cannot be read as PNG, perhaps truncated (",
    ),
    'truncated ground truth': (
        lambda gt, pred: cut(gt / 'a.png', 0.3),
        "'{gt}/a.png' cannot be read as PNG, perhaps truncated (",
    ),
    'empty': (
        lambda gt, pred: cut(pred / 'a.png', 0),
        "'{pred}/a.png' cannot be read as PNG, perhaps truncated (",
    ),
    'JPEG': (lambda gt, pred: jpeg(gt / 'a.png'), "'{gt}/a.png' cannot be read as PNG"),
    'colour': (
        lambda gt, pred: colour(pred / 'a.png'),
        "'{pred}/a.png' is a PNG of mode RGB, and a label map has one channel of 8 bits",
    ),
    '16 bits': (
        lambda gt, pred: wide(gt / 'a.png'),
        "'{gt}/a.png' is a PNG of mode I;16, and a label map has one channel of 8 bits",
    ),
    'ground-truth label': (
        lambda gt, pred: rewrite(gt, [[0, 3, 4], [0, 0, 0]]),
        "'{gt}/a.png': label 3 is neither a class (0 to 2) nor ignored (255) (2 such pixels): "
        'check the classes and reduce_zero_label',
    ),
    'predicted label': (
        lambda gt, pred: rewrite(pred, [[0, 254, 1], [0, 0, 0]]),
        "'{pred}/a.png': label 254 is neither a class (0 to 2) nor ignored (255) (1 such",
    ),
    'no files': (
        lambda gt, pred: [drop(pred, 'a'), drop(pred, 'b')],
        "'{pred}' has no .png files: give the folder of the label maps itself",
    ),
}


@pytest.mark.parametrize(('spoil', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_files_are_named(folders, spoil, message):
    gt, pred = folders
    spoil(gt, pred)
    with pytest.raises(UserError) as error:
        run(gt, pred)
    assert message.format(gt=gt, pred=pred) in str(error.value)
    assert '\n' not in str(error.value)


def test_labels_are_named_as_the_file_has_them(tmp_path):
    gt = save(tmp_path / 'gt', a=[[1, 4]])
    with pytest.raises(UserError, match=r'label 4 is neither a class \(1 to 3\) nor ignored'):
        run(gt, gt, reduce_zero_label=True)


def test_a_missing_folder_is_named(folders):
    gt, pred = folders
    for wrong in ((gt / 'none', pred), (gt, pred / 'none'), (gt, pred / 'a.png')):
        with pytest.raises(UserError, match=r"(none|a\.png)' is not a folder"):
            run(*wrong)


@pytest.mark.parametrize(
    ('num_classes', 'reduce_zero_label', 'limit'),
    [(0, False, 255), (256, False, 255), (255, True, 254)],
)
def test_classes_beyond_8_bits_are_refused(folders, num_classes, reduce_zero_label, limit):
    with pytest.raises(UserError, match=f'^{num_classes} classes: .* hold 1 to {limit}$'):
        run(*folders, num_classes=num_classes, reduce_zero_label=reduce_zero_label)


def test_any_damage_is_an_error_of_one_kind(folders):
    gt, _ = folders
    path = gt / 'b.png'
    whole = path.read_bytes()
    (expected,) = run(gt, gt)
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(150):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content[: rng.integers(1, len(content) + 1)])
        try:
            run(gt, gt)
        except UserError:
            failed += 1
    assert failed > 100
    path.write_bytes(whole)
    (again,) = run(gt, gt)
    assert same(again.counts, expected.counts)


def test_real_sample(tmp_path):
    gt = SAMPLES / 'ade20k_sample/annotations/validation'
    if not gt.is_dir():
        pytest.skip(f'{gt} is not there: set MMBIFORMER_SAMPLES')
    maps = {path.stem: np.array(Image.open(path)) for path in sorted(gt.glob('*.png'))}
    # Half the resolution, and wall wherever nothing is labelled, as a model would have something.
    halves = {name: x[::2, ::2].repeat(2, 0).repeat(2, 1) for name, x in maps.items()}
    halves = {
        name: np.where(x == 0, 1, x)[: maps[name].shape[0], : maps[name].shape[1]]
        for name, x in halves.items()
    }
    pred = save(tmp_path / 'pred', **halves)
    model, perfect = count_folders(gt, [pred, gt], 150, RANGES, reduce_zero_label=True)
    assert len(model.counts.ignored) == len(maps)
    values = scores(model.counts.total())
    everything = scores(perfect.counts.total())
    recall = values['pixel_recall'][1:]
    has_pixels = ~np.isnan(recall)
    assert has_pixels.sum() > 4 and recall[has_pixels][0] < recall[has_pixels][-1] < 1
    assert everything['mIoU'] == 1 and np.nanmin(everything['segments_found']) == 1

    total = 0
    for name, raw in maps.items():
        labels = torch.from_numpy(np.where(raw == 0, 255, raw - 1).astype(np.int64))
        prediction = torch.from_numpy(halves[name].astype(np.int64) - 1)
        areas = IoUMetric.intersect_and_union(prediction, labels, 150, 255)
        total = torch.stack(areas).double() + total
    expected = IoUMetric.total_area_to_metrics(*total)
    np.testing.assert_allclose(values['IoU'], expected['IoU'], rtol=0, atol=1e-9)
    assert values['pixel_recall'][0] == pytest.approx(expected['aAcc'], abs=1e-9)
