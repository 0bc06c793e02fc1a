"""tools/segment_sizes.py as its users run it."""

import json

import numpy as np
import pytest
from PIL import Image
from toolbox import SAMPLES, run_tool

CLASSES = ('wall', 'lamp', 'sky')
FILES = [f'segment_sizes.{ending}' for ending in ('json', 'csv', 'html', 'png')]


def save(path, labels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


@pytest.fixture
def maps(tmp_path):
    """A wall with a lamp of 2 x 2 and one of 10 x 10, which 'blind' does not see; no sky."""
    for i in range(3):
        labels = np.zeros((40, 30 + i))
        labels[5:7, 3:5] = labels[20:30, 10:20] = 1
        labels[:, -1] = 255
        save(tmp_path / f'gt/{i}.png', labels)
        save(tmp_path / f'perfect/{i}.png', labels)
        save(tmp_path / f'blind/{i}.png', np.zeros_like(labels))
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    return tmp_path


def options(maps, *models):
    return (
        *('--gt-dir', maps / 'gt', '--pred-dirs', *(maps / name for name in models)),
        *('--classes', maps / 'classes.txt', '--out-dir', maps / 'report'),
    )


def run(*args):
    run_tool('segment_sizes', *args)


def test_two_folders(maps, capsys):
    run(*options(maps, 'blind', 'perfect'), '--bootstrap', 100, '--seed', 1)
    printed = capsys.readouterr().out
    out = maps / 'report'
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (out / name).stat().st_size > 1000
        assert f'wrote {out / name}' in printed
    assert 'perfect minus blind' in printed and '| 8-16' in printed
    report = json.loads((out / 'segment_sizes.json').read_text())
    assert report['made']['command'].startswith('python tools/segment_sizes.py --gt-dir')
    assert report['bootstrap']['num_resamples'] == 100 and report['bootstrap']['seed'] == 1
    blind, perfect = report['models']
    assert (blind['name'], perfect['path']) == ('blind', str(maps / 'perfect'))
    assert perfect['totals']['mIoU'] == 1 and blind['totals']['mIoU'] < 0.5
    assert [row['name'] for row in blind['classes']] == list(CLASSES)
    sizes = {row['name']: row for row in blind['sizes']}
    assert [sizes[x]['segments'] for x in ('all', '0-8', '8-16', '16-32')] == [9, 3, 3, 0]
    assert sizes['8-16']['pixel_recall'] == 0 and sizes['16-32']['pixel_recall'] is None
    assert sizes['32-64']['segments_found'] == 1


def test_own_ranges_without_bootstrap(maps):
    ranges = ('--measure', 'area', '--ranges', 'tiny=0-4', 'lamps=4-101', 'rest=101-')
    run(*options(maps, 'blind'), *ranges, '--bootstrap', 0)
    report = json.loads((maps / 'report/segment_sizes.json').read_text())
    assert report['bootstrap'] is None and report['differences'] == []
    rows = report['models'][0]['sizes']
    assert [(x['name'], x['segments']) for x in rows] == [
        *(('all', 9), ('tiny', 0), ('lamps', 6), ('rest', 3))
    ]


def test_a_known_data_set_and_zero_for_no_class(maps):
    run(*options(maps, 'perfect'), '--classes', 'ade20k', '--reduce-zero-label')
    (model,) = json.loads((maps / 'report/segment_sizes.json').read_text())['models']
    assert len(model['classes']) == 150
    assert model['classes'][0]['sizes'][0]['segments'] == 6, 'the lamps, as wall'
    assert model['sizes'][0]['segments'] == 6, 'label 0 is no class'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (('--gt-dir', 'nowhere'), "'nowhere' is not a folder: give the folder of the label maps"),
        (('--pred-dirs', 'nowhere'), "'nowhere' is not a folder"),
        (('--classes', 'ade20'), "--classes 'ade20' is neither a file nor a data set of mmseg"),
        (('--ranges', 'tiny=0:8'), "'tiny=0:8': write NAME=LOW-HIGH"),
        (('--ranges', 'tiny=8-0'), "'tiny' is (8.0, 0.0): give (low, high) with 0 <= low < high"),
        (('--bootstrap', '-1'), '--bootstrap -1: give 100 or more'),
        (('--classes', '{maps}/one.txt'), "gt/0.png': label 1 is neither a class (0 to 0) nor"),
    ],
    ids=['ground truth', 'predictions', 'classes', 'ranges', 'bounds', 'bootstrap', 'labels'],
)
def test_errors_are_one_line(maps, capsys, changes, message):
    (maps / 'one.txt').write_text(CLASSES[0])
    with pytest.raises(SystemExit) as stop:
        run(*options(maps, 'blind'), *(x.format(maps=maps) for x in changes))
    assert stop.value.code == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if 'error:' in x]
    assert len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0]
    assert not (maps / 'report').exists()


def test_real_label_maps_and_what_a_shift_does(tmp_path):
    """A prediction that lies 4 pixels beside the ground truth misses small segments first."""
    gt = SAMPLES / 'ade20k_sample/annotations/validation'
    if not gt.is_dir():
        pytest.skip(f'{gt} is not there: set MMBIFORMER_SAMPLES')
    for path in gt.glob('*.png'):
        with Image.open(path) as image:
            labels = np.array(image)
        save(tmp_path / f'same/{path.name}', labels)
        save(tmp_path / f'shifted/{path.name}', np.roll(labels, 4, axis=1))
    run(
        *('--gt-dir', gt, '--pred-dirs', tmp_path / 'same', tmp_path / 'shifted'),
        *('--classes', 'ade20k', '--reduce-zero-label', '--bootstrap', 100),
        *('--out-dir', tmp_path / 'report'),
    )
    same, shifted = json.loads((tmp_path / 'report/segment_sizes.json').read_text())['models']
    assert same['totals']['images'] == 3 and same['totals']['mIoU'] == 1
    for row in same['sizes']:
        expected = 1 if row['segments'] else None
        assert row['pixel_recall'] == row['class_recall'] == row['segments_found'] == expected
    sizes = {row['name']: row for row in shifted['sizes']}
    assert sizes['0-8']['segments'] > 5 and sizes['128-256']['segments'] > 0
    assert sizes['0-8']['pixel_recall'] < sizes['32-64']['pixel_recall'] < 1
    assert sizes['32-64']['pixel_recall'] < sizes['128-256']['pixel_recall'] < 1
