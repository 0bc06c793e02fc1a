"""tools/explore_routing.py as its users run it."""

import json

import cv2
import numpy as np
import pytest
from chromium import chromium
from toolbox import CONFIGS, SAMPLES, run_tool, save_untrained

DETECTOR = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTER = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
CLASSIFIER = CONFIGS.parent / 'classification/biformer_quickstart_shapes.py'
TASKS = {'detector': DETECTOR, 'segmenter': SEGMENTER, 'classifier': CLASSIFIER}
IMAGES = 'one.png', 'two.png'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two images of 200 x 120 pixels with their ground truth, and a checkpoint of each task."""
    folder = tmp_path_factory.mktemp('explorers')
    for kind in ('images', 'labels'):
        (folder / kind).mkdir()
    box = dict(category_id=1, bbox=[20, 30, 40, 50], area=2000, iscrowd=0)
    content = dict(
        images=[dict(id=i, file_name=x, width=200, height=120) for i, x in enumerate(IMAGES)],
        categories=[dict(id=1, name='ring')],
        annotations=[dict(box, id=i + 1, image_id=i) for i in range(2)],
    )
    (folder / 'instances.json').write_text(json.dumps(content))
    for i, name in enumerate(IMAGES):
        image = np.random.default_rng(i).integers(0, 255, (120, 200, 3), np.uint8)
        cv2.imwrite(str(folder / 'images' / name), image)
        cv2.imwrite(str(folder / 'labels' / name), np.ones((120, 200), np.uint8))
    for config in TASKS.values():
        save_untrained(config, folder / f'{config.stem}.pth')
    return folder


def run(folder, image, *args, config=DETECTOR):
    checkpoint = folder / f'{config.stem}.pth'
    run_tool('explore_routing', folder / image, config, checkpoint, *args, '--device', 'cpu')


def read(path) -> dict:
    """What the page knows."""
    text = path.read_text(encoding='utf-8')
    return json.loads(text.partition('id="content" type="application/json">')[2].partition('<')[0])


@pytest.mark.parametrize('task', TASKS)
def test_a_page_of_an_image(folder, tmp_path, capsys, task):
    run(folder, 'images/one.png', '--out-dir', tmp_path, config=TASKS[task])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'one.html')
    content = read(tmp_path / 'one.html')
    assert content['image']['width'], content['image']['height'] == (200, 120)
    (model,) = content['models']
    # The first three stages route, in each of their blocks.
    assert len(model['maps']) == 5
    assert (model['found']['labels'] is not None) is (task == 'segmenter')
    assert bool(model['found']['text']) is (task == 'classifier')
    with chromium() as page:
        page.open(tmp_path / 'one.html')
        page.wait("document.querySelector('tbody tr')?.dataset.attention")
        assert page.errors == []


def test_ground_truth_of_a_detector(folder, tmp_path):
    truth = '--annotations', folder / 'instances.json'
    run(folder, 'images/one.png', *truth, '--score-threshold', '1', '--out-dir', tmp_path)
    content = read(tmp_path / 'one.html')
    (thing,) = content['truth']['things']
    assert thing == dict(box=[20, 30, 60, 80], label='ring', score=None)
    assert content['models'][0]['missed'] == [True]
    assert content['models'][0]['found']['things'] == []


def test_ground_truth_of_a_segmenter(folder, tmp_path):
    truth = '--annotations', folder / 'labels'
    run(folder, 'images/one.png', *truth, '--out-dir', tmp_path, config=SEGMENTER)
    (label,) = read(tmp_path / 'one.html')['truth']['labels']['classes']
    assert (label['name'], label['share']) == ('background', 1)


def test_two_models_and_chosen_modules(folder, tmp_path):
    name = 'backbone.stages.1.0.attn'
    other = folder / f'{SEGMENTER.stem}.pth'
    run(
        folder,
        'images/one.png',
        '--modules',
        name,
        '--beside',
        SEGMENTER,
        other,
        '--out-dir',
        tmp_path,
    )
    models = read(tmp_path / 'one.html')['models']
    checkpoints = [folder / f'{x.stem}.pth' for x in (DETECTOR, SEGMENTER)]
    assert [x['name'] for x in models] == [f'{x.stem}, {x}' for x in checkpoints]
    assert [[x['name'] for x in model['maps']] for model in models] == [[name], [name]]


def test_a_folder(folder, tmp_path):
    run(folder, 'images', '--out-dir', tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == ['one.html', 'two.html']


def test_the_worst_images_of_a_size_report(folder, tmp_path):
    """And back: the report made again links to their pages."""
    detection = dict(image_id=1, category_id=1, bbox=[100, 30, 40, 50], score=0.9)
    (tmp_path / 'results.json').write_text(json.dumps([detection]))
    files = '--ann', folder / 'instances.json', '--results', tmp_path / 'results.json'
    options = '--images', folder / 'images', '--bootstrap', '0', '--out-dir', tmp_path / 'report'
    run_tool('size_ap', *files, *options)
    report = tmp_path / 'report/size_ap.json'
    pages = tmp_path / 'report/explorers'
    run(folder, report, '--image-dir', folder / 'images', '--out-dir', pages)
    assert sorted(x.name for x in pages.iterdir()) == ['one.html', 'two.html']
    run_tool('size_ap', *files, *options, '--explorers', pages)
    html = (tmp_path / 'report/size_ap.html').read_text()
    assert 'href="explorers/two.html#40.0,55.0"' in html


class TestWrongInput:
    """One line that names what is wrong, and exit code 2."""

    @pytest.fixture
    def refused(self, folder, tmp_path, capsys):
        def refused(text, *args, image='images/one.png'):
            with pytest.raises(SystemExit) as stop:
                run(folder, image, *args, '--out-dir', tmp_path / 'out')
            assert stop.value.code == 2
            lines = capsys.readouterr().err.strip().splitlines()
            assert lines[-1].startswith('error: ')
            assert text in lines[-1]
            assert not (tmp_path / 'out').exists()

        return refused

    def test_no_image(self, folder, refused):
        (folder / 'text.png').write_text('text')
        refused("text.png' is no image", image='text.png')

    def test_a_size_too_small(self, refused):
        refused('the page does not fit --max-size', '--max-size', '0.04')

    def test_a_threshold_that_is_no_score(self, refused):
        refused('--score-threshold 2: choose from 0 to 1', '--score-threshold', '2')

    def test_no_size_report(self, folder, refused):
        images = '--image-dir', folder
        refused("instances.json' is missing, or no size_ap.json", *images, image='instances.json')

    def test_an_image_dir_for_nothing(self, folder, refused):
        refused('--image-dir is for the images of a size_ap.json', '--image-dir', folder)

    def test_images_of_one_name(self, folder, tmp_path, refused):
        for name in ('a.png', 'a.jpg'):
            (tmp_path / name).write_bytes((folder / 'images/one.png').read_bytes())
        refused("two images are named 'a'", image=tmp_path)

    def test_ground_truth_of_another_image(self, folder, tmp_path, refused):
        (tmp_path / 'other.png').write_bytes((folder / 'images/one.png').read_bytes())
        truth = '--annotations', folder / 'instances.json'
        refused(
            "has no record of 1 of 1 images, as 'other.png'", *truth, image=tmp_path / 'other.png'
        )

    @pytest.mark.parametrize(
        ('task', 'truth'),
        [('detector', 'labels'), ('segmenter', 'instances.json'), ('classifier', 'labels')],
    )
    def test_ground_truth_of_another_task(self, folder, tmp_path, capsys, task, truth):
        args = '--annotations', folder / truth, '--out-dir', tmp_path / 'out'
        with pytest.raises(SystemExit):
            run(folder, 'images/one.png', *args, config=TASKS[task])
        assert 'error: --annotations does not fit' in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()

    def test_classes_that_nothing_names(self, folder, tmp_path, capsys):
        config = tmp_path / 'config.py'
        dataset = "type='CocoDataset', metainfo=dict(classes=None)"
        config.write_text(
            f"_base_ = '{DETECTOR}'\ntest_dataloader = dict(dataset=dict({dataset}))\n"
        )
        args = folder / 'images/one.png', config, folder / f'{DETECTOR.stem}.pth'
        with pytest.raises(SystemExit):
            run_tool('explore_routing', *args, '--out-dir', tmp_path / 'out')
        assert 'names classes: set' in capsys.readouterr().err


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f'no real samples in {SAMPLES}')
def test_a_real_image_with_its_ground_truth(tmp_path):
    config = CONFIGS / 'retinanet_biformer-t_fpn_1x_coco.py'
    save_untrained(config, tmp_path / 'model.pth')
    truth = next((SAMPLES / 'coco_tiny/annotations').glob('instances_val*.json'))
    image = next((SAMPLES / 'coco_tiny').glob('val*/*.jpg'))
    args = image, config, tmp_path / 'model.pth', '--annotations', truth, '--device', 'cpu'
    names = [f'backbone.stages.{i}.0.attn' for i in range(3)]
    run_tool('explore_routing', *args, '--modules', *names, '--out-dir', tmp_path / 'out')
    content = read(tmp_path / f'out/{image.stem}.html')
    records = json.loads(truth.read_text())
    (number,) = (x['id'] for x in records['images'] if x['file_name'] == image.name)
    objects = [x for x in records['annotations'] if x['image_id'] == number and not x['iscrowd']]
    assert len(content['truth']['things']) == len(objects)
    assert (tmp_path / f'out/{image.stem}.html').stat().st_size < 15e6
