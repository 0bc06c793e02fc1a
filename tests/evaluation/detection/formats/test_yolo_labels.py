"""Folders of YOLO labels: what is left out is said, what is wrong is named by file and line."""

import numpy as np
import pytest
from other_formats import coco_content, random_sample, write_images, write_json, write_labels
from PIL import Image

from mmbiformer.errors import UserError
from mmbiformer.evaluation.detection.formats.reading import read_detections, read_ground_truth

NAMES = ['a.jpg', 'b.jpg', 'c.jpg']


@pytest.fixture
def sample():
    return random_sample(0, NAMES)


@pytest.fixture
def folders(tmp_path, sample):
    """Of images, of labels and of results."""
    return (
        write_images(tmp_path / 'images', sample),
        write_labels(tmp_path / 'labels', sample.objects),
        write_labels(tmp_path / 'found', sample.found),
    )


def read(folders, **options):
    truth = read_ground_truth(folders[1], image_dir=folders[0], **options)
    return truth, read_detections(folders[2], truth)


def test_what_is_read(folders, sample):
    truth, found = read(folders)
    assert truth.image_ids == [x['file_name'] for x in truth.images] == NAMES
    assert [(x['height'], x['width']) for x in truth.images] == list(sample.sizes.values())
    assert truth.category_names == ['0', '1', '2']
    assert (truth.category + 1).tolist() == [
        truth.category_ids[int(row[0])] for name in NAMES for row in sample.objects[name]
    ]
    assert len(found.scores) == sum(map(len, sample.found.values()))
    assert truth.notices == ['1 of 3 images have no label file, and no objects']
    assert found.notices == []


def test_classes_by_name(folders):
    truth, _ = read(folders, class_names=['car', 'bus', 'bike', 'van'])
    assert truth.category_names == ['car', 'bus', 'bike', 'van']
    truth = read_ground_truth(folders[1], ['bus'], folders[0], ['car', 'bus', 'bike'])
    assert truth.category_names == ['bus']
    assert any('annotations of other categories are left out' in x for x in truth.notices)


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif'])
def test_size_is_that_of_the_image_as_shown(folders, ending):
    (folders[0] / 'c.jpg').unlink(missing_ok=True)
    Image.new('RGB', (30, 11)).save(folders[0] / f'c.{ending}', exif=turned())
    truth, _ = read(folders)
    assert (truth.images[2]['height'], truth.images[2]['width']) == (30, 11)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_what_is_left_out_is_said(folders):
    (folders[1] / 'classes.txt').write_text('car\nbus\nbike\n')
    (folders[1] / 'labels.cache').write_bytes(b'\x00')
    Image.new('L', (3, 3)).save(folders[1] / 'shown.jpg')
    truth, _ = read(folders)
    which = f"2 files of '{folders[1]}' ('classes.txt') are no labels; left out"
    assert truth.notices[0] == which
    (folders[2] / 'classes.txt').write_text('car')
    _, found = read(folders)
    assert found.notices == [f"1 files of '{folders[2]}' ('classes.txt') are no labels; left out"]
    Image.new('L', (9, 9)).save(folders[0] / 'classes.png')
    (folders[1] / 'classes.txt').write_text('0 0.5 0.5 0.1 0.1')
    (folders[2] / 'classes.txt').write_text('0 0.5 0.5 0.1 0.1 0.5')
    truth, found = read(folders)
    assert truth.image_ids[-1] == 'classes.png'
    assert truth.image[-1] == found.image[-1] == 3


def test_empty_lines_and_files(folders):
    (folders[1] / 'c.txt').write_text('')
    (folders[1] / 'a.txt').write_text('\ufeff\n0 .5 .5 .1 .1\n\n 1.0 .5 .5 .1 .1 \r\n', 'utf-8')
    truth, _ = read(folders)
    assert truth.category[truth.image == 0].tolist() == [0, 1]
    assert not any('label file' in x for x in truth.notices)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            '0 .5 .5 .1',
            '4 columns are neither a box nor a polygon: a box has 5, a polygon 7, 9 or more',
        ),
        ('0 .5 .5 .1 .1 .9', '6 columns, as results have: give predictions by --results'),
        ('0 .1 .1 .2 .2 .1 .3 .9', '8 columns, as results have'),
        ('0 .5 .5 .1 x', "could not convert string to float: 'x'"),
        ('0 .5 .5 .1 nan', 'nan is not a finite number'),
        ('0 .5 inf .1 .1', 'inf is not a finite number'),
        ('nan .5 .5 .1 .1', 'nan is not a finite number'),
        ('-1 .5 .5 .1 .1', 'the class -1 is not a whole number from 0 on'),
        ('0.5 .5 .5 .1 .1', 'the class 0.5 is not a whole number from 0 on'),
        ('0 320 .5 .1 .1', '320 is no fraction from 0 to 1: are these pixels'),
        ('0 .5 .5 1.02 .1', '1.02 is no fraction'),
        ('0 .1 .1 .2 .2 -.1 .3', '-.1 is no fraction'),
        ('0 .5 .5 .1 -.005', 'the box has a negative width or height: .1 -.005'),
    ],
)
def test_wrong_lines_of_objects(folders, line, message):
    (folders[1] / 'b.txt').write_text(f'0 .5 .5 .1 .1\n{line}\n')
    with pytest.raises(UserError, match=f"labels/b.txt:2': {message}"):
        read(folders)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            '0 .5 .5 .1 .1',
            '5 columns have no confidence, or a track id: write it by save_conf=True',
        ),
        ('0 .1 .1 .2 .2 .1 .3', '7 columns have no confidence'),
        ('0 .5 .5 .1 .1 .9 3', '7 columns have no confidence, or a track id'),
        ('0 .5 .5 .1 .1 1.5', 'the confidence 1.5 is not from 0 to 1'),
        ('0 .5 .5 .1 .1 -0.1', 'the confidence -0.1 is not from 0 to 1'),
        ('0 .5 .5 .1 .1 nan', 'nan is not a finite number'),
        ('0 .5 .5 -.001 .1 .5', 'the box has a negative width'),
        ('7 .5 .5 .1 .1 .5', None),
        ('0 .1 .1 .2 .2 .1 .3 .9', None),
    ],
)
def test_wrong_lines_of_results(folders, line, message):
    (folders[2] / 'b.txt').write_text(f'0 .5 .5 .1 .1 1\n{line}\n')
    prefix = f"found/b.txt:2': {message}"
    if line[0] == '7':
        prefix = "found/b.txt:2' has the class 7, which is not in .*labels' .1 of "
    elif message is None:
        prefix = "found/b.txt:2' has bbox and segmentation, while record 0 has bbox"
    with pytest.raises(UserError, match=prefix):
        read(folders)


def test_class_beyond_the_names(folders):
    with pytest.raises(UserError, match=r"labels/.\.txt:\d' has the class 2: --classes ends at 1"):
        read(folders, class_names=['car', 'bus'])


def test_zero_sizes_are_said_as_for_coco(folders):
    (folders[1] / 'b.txt').write_text('0 .5 .5 0 .1\n')
    truth, _ = read(folders)
    assert '1 objects have a box without area, and cannot be found' in truth.notices


def test_files_without_an_image(folders):
    labels, found = folders[1:]
    (labels / 'z.txt').write_text('')
    with pytest.raises(UserError, match=r"labels/z.txt' is of no image in '.*images' .1 of 3.:"):
        read(folders)
    (labels / 'z.txt').unlink()
    (found / 'z.txt').write_text('0 .5 .5 .1 .1 .5')
    with pytest.raises(UserError, match=r"found/z.txt' is of no image of '.*labels'"):
        read(folders)
    (found / 'z.txt').rename(found.parent / 'sub.txt')
    (found / 'deep').mkdir()
    (found / 'a.txt').rename(found / 'deep/a.txt')
    with pytest.raises(UserError, match=r"deep/a.txt' is of no image .*the folder of the labels"):
        read(folders)


def test_two_files_of_one_image(folders):
    (folders[0] / 'sub').mkdir()
    Image.new('L', (9, 9)).save(folders[0] / 'sub/d.png')
    (folders[2] / 'd.txt').write_text('0 .5 .5 .1 .1 .5')
    (folders[2] / 'sub_d.txt').write_text('0 .5 .5 .1 .1 .5')
    with pytest.raises(UserError, match=r"found/d.txt' and '.*found/sub_d.txt' are of the same"):
        read(folders)


def test_one_file_of_two_images(folders):
    for name in ('sub/d.png', 'other/d.png'):
        (folders[0] / name).parent.mkdir()
        Image.new('L', (9, 9)).save(folders[0] / name)
    (folders[2] / 'd.txt').write_text('0 .5 .5 .1 .1 .5')
    with pytest.raises(UserError, match=r"image 'd' of '.*found' may be 'other/d.png' or 'sub/d"):
        read(folders)
    Image.new('L', (9, 9)).save(folders[0] / 'a.png')
    with pytest.raises(UserError, match=r"'a.jpg' and 'a.png' in '.*images' share a label file"):
        read(folders)


def test_a_path_comes_before_its_end(folders):
    (folders[0] / 'sub').mkdir()
    Image.new('L', (9, 9)).save(folders[0] / 'sub/c.jpg')
    (folders[2] / 'c.txt').write_text('0 .5 .5 .1 .1 .5')
    (folders[2] / 'sub_c.txt').write_text('1 .5 .5 .1 .1 .5')
    truth, found = read(folders)
    assert truth.image_ids[2:] == ['c.jpg', 'sub/c.jpg']
    assert [found.category[found.image == i].tolist() for i in (2, 3)] == [[0], [1]]


def test_a_folder_has_no_order(folders, tmp_path):
    truth, _ = read(folders)
    lists = [dict(boxes=[[1, 2, 3, 4]], labels=[1], scores=[1]) for _ in NAMES]
    with pytest.raises(
        UserError, match=r'the 3 records of .* have neither image_id nor file_name'
    ):
        read_detections(write_json(tmp_path / 'lists.json', lists), truth)


def test_folders_that_are_none(folders, tmp_path):
    for image_dir in (None, tmp_path / 'gone'):
        said = image_dir or 'not given'
        with pytest.raises(UserError, match=rf'--images names their folder, and is {said}'):
            read_ground_truth(folders[1], image_dir=image_dir)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=r"empty' has no label files"):
        read_ground_truth(tmp_path / 'empty', image_dir=folders[0])
    with pytest.raises(UserError, match=r"labels/a.txt' is of no image in '.*empty' .2 of 2.:"):
        read_ground_truth(folders[1], image_dir=tmp_path / 'empty')
    (folders[2] / 'a.txt').write_bytes(b'\xff\xfe')
    with pytest.raises(UserError, match=r"found/a.txt' is no text file: .*utf-8"):
        read(folders)
    (folders[0] / 'b.jpg').write_bytes(b'none')
    with pytest.raises(UserError, match=r"images/b.jpg' has no size that can be read: cannot id"):
        read(folders)


def test_a_detector_that_found_nothing(folders, tmp_path):
    truth, _ = read(folders)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=r"empty' has no detections: is it the result of"):
        read_detections(tmp_path / 'empty', truth)
    assert len(read_detections(tmp_path / 'empty', truth, may_be_empty=True).scores) == 0


def test_results_on_coco_files_need_sizes(folders, tmp_path, sample):
    content = coco_content(sample)
    del content['images'][1]['height']
    truth = read_ground_truth(write_json(tmp_path / 'gt.json', content))
    with pytest.raises(UserError, match=r"image 102 of '.*gt.json' has no height and width"):
        read_detections(folders[2], truth)


def test_area_of_a_polygon_is_that_of_its_mask(tmp_path):
    sample = random_sample(1, ['a.jpg', 'b.jpg'], polygons=True)
    sample.sizes['a.jpg'] = (40, 60)
    sample.objects['a.jpg'] = [[0, 0.25, 0.25, 0.75, 0.25, 0.75, 0.75]]
    images = write_images(tmp_path / 'images', sample)
    truth = read_ground_truth(write_labels(tmp_path / 'x', sample.objects), image_dir=images)
    assert truth.segmentations == [[[15.0, 10.0, 45.0, 10.0, 45.0, 30.0]]]
    assert truth.boxes.tolist() == [[15.0, 10.0, 30.0, 20.0]]
    assert abs(truth.areas[0] - 300) < 20 and truth.areas[0] % 1 == 0
    assert np.isfinite(truth.areas).all()
