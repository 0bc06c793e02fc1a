"""tools/visualize_routing.py as its users run it."""

import json

import cv2
import numpy as np
import pytest
import torch
from toolbox import CONFIGS, SAMPLES, run_tool, save_untrained

from mmbiformer.engine import load_config
from mmbiformer.engine.images import ImagePipeline, load_model
from mmbiformer.visualization import look_at

DETECTOR = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTER = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
QUERY = (130, 40)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """An image of 200 x 120 pixels, and a checkpoint of each task."""
    folder = tmp_path_factory.mktemp('routing')
    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    cv2.imwrite(str(folder / 'image.png'), image)
    for config in (DETECTOR, SEGMENTER):
        save_untrained(config, folder / f'{config.stem}.pth')
    return folder


def run(folder, config, *args, image='image.png'):
    checkpoint = folder / f'{config.stem}.pth'
    run_tool('visualize_routing', folder / image, config, checkpoint, *args, '--device', 'cpu')


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTER], ids=['detector', 'segmenter'])
def test_pictures_and_numbers(folder, tmp_path, config, capsys):
    run(folder, config, '--query', '130,40', '20.5,99', '--out-dir', tmp_path)
    stems = 'image_query_130_40', 'image_query_20.5_99', 'image_chosen'
    expected = {f'{stem}.{kind}' for stem in stems for kind in ('png', 'pdf')}
    expected.add('image_routing.json')
    assert {path.name for path in tmp_path.iterdir()} == expected
    printed = capsys.readouterr().out.splitlines()
    assert {str(tmp_path / name) for name in expected} <= set(printed)
    for path in tmp_path.glob('*.png'):
        assert min(cv2.imread(str(path)).shape[:2]) > 300
    described = json.loads((tmp_path / 'image_routing.json').read_text())
    assert described['image'] == dict(width=200, height=120)
    modules = described['modules']
    stages = ['stages.0.0', 'stages.1.0', 'stages.2.2']  # the last block of each that routes
    assert [x['name'] for x in modules] == [f'backbone.{x}.attn' for x in stages]
    for module in modules:
        assert np.array(module['chosen_by']).shape == (module['partition_factor'],) * 2
        query = module['queries'][0]
        left, top, right, bottom = query['region']['box']
        assert left <= QUERY[0] < right
        assert top <= QUERY[1] < bottom
        regions = query['routes_to']
        assert len(regions) == module['topk']
        shares = sum(x['attention'] for x in regions)
        assert shares + query['attention_on_padding'] == pytest.approx(1)
        affinities = [x['affinity'] for x in regions]
        assert affinities == sorted(affinities, reverse=True)


def test_all_modules_and_the_middle_of_the_image(folder, tmp_path):
    run(folder, DETECTOR, '--modules', 'all', '--out-dir', tmp_path)
    described = json.loads((tmp_path / 'image_routing.json').read_text())
    assert len(described['modules']) == 5
    assert (tmp_path / 'image_query_100_60.png').exists()


def test_the_prediction_is_that_of_the_model_alone(folder):
    cfg = load_config(str(DETECTOR))
    model = load_model(cfg, str(folder / f'{DETECTOR.stem}.pth'), 'cpu')
    pipeline = ImagePipeline(cfg)
    path = str(folder / 'image.png')
    look = look_at(model, pipeline, path)
    _, data = pipeline.prepare(path)
    with torch.no_grad():
        (alone,) = model.test_step(data)
    assert len(alone.pred_instances.scores) > 0
    assert torch.equal(look.prediction.pred_instances.bboxes, alone.pred_instances.bboxes)


def test_a_segmenter_takes_the_image_as_a_whole(folder, tmp_path):
    """In windows each of its modules would see the image in parts."""
    config = tmp_path / 'config.py'
    slide = "dict(mode='slide', crop_size=(96, 96), stride=(64, 64))"
    config.write_text(f"_base_ = '{SEGMENTER}'\nmodel = dict(test_cfg={slide})\n")
    checkpoint = folder / f'{SEGMENTER.stem}.pth'
    args = folder / 'image.png', config, checkpoint, '--modules', 'all', '--device', 'cpu'
    run_tool('visualize_routing', *args, '--out-dir', tmp_path / 'out')
    described = json.loads((tmp_path / 'out/image_routing.json').read_text())
    names = [x['name'] for x in described['modules']]
    assert len(names) == len(set(names)) == 5
    assert described['modules'][0]['tokens'] == dict(height=30, width=50)


def test_a_folder(folder, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a', 'b'):
        (images / f'{name}.png').write_bytes((folder / 'image.png').read_bytes())
    run(folder, DETECTOR, '--out-dir', tmp_path / 'out', image=images)
    modules = json.loads((tmp_path / 'out/routing_statistics.json').read_text())
    assert [x['images'] for x in modules] == [2] * 5
    assert capsys.readouterr().out.count('backbone.stages.2.') == 3


class TestWrongInput:
    """One line that names what is wrong, and exit code 2."""

    @pytest.fixture
    def refused(self, folder, tmp_path, capsys):
        def refused(text, *args, config=DETECTOR, image='image.png'):
            with pytest.raises(SystemExit) as stop:
                run(folder, config, *args, '--out-dir', tmp_path / 'out', image=image)
            assert stop.value.code == 2
            lines = capsys.readouterr().err.strip().splitlines()
            assert lines[-1].startswith('error: ')
            assert text in lines[-1]
            assert not (tmp_path / 'out').exists()

        return refused

    def test_a_query_outside_of_the_image(self, refused):
        refused('(200, 40) is outside of the image, which is 200 x 120', '--query', '200,40')

    def test_a_query_that_is_no_pixel(self, refused):
        refused('--query 3x4: write x and y', '--query', '3x4')

    def test_no_image(self, folder, refused):
        (folder / 'text.png').write_text('text')
        refused("text.png' is no image", image='text.png')

    def test_a_query_of_a_folder(self, folder, refused):
        refused('--query is for an image', '--query', '1,2', image=folder)

    def test_annotations_of_an_image(self, refused):
        refused('--annotations for a folder', '--annotations', 'instances.json')

    def test_a_missing_image(self, refused):
        refused("missing.png' is missing", image='missing.png')

    def test_an_unknown_module(self, refused):
        refused("no routed attention 'stages.0'", '--modules', 'stages.0')

    def test_a_model_without_routed_attention(self, folder, tmp_path, refused):
        config = tmp_path / 'plain.py'
        arch = "type='mmbiformer.CloFormer', arch='xxs', _delete_=True, out_indices=(1, 2, 3)"
        neck = 'in_channels=[64, 128, 256]'
        config.write_text(
            f"_base_ = '{DETECTOR}'\nmodel = dict(backbone=dict({arch}), neck=dict({neck}))\n"
        )
        save_untrained(config, folder / 'plain.pth')
        refused('has no routed attention to look into', config=config)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f'no real samples in {SAMPLES}')
def test_a_real_image_of_a_detector_of_coco(tmp_path):
    config = CONFIGS / 'retinanet_biformer-t_fpn_1x_coco.py'
    save_untrained(config, tmp_path / 'model.pth')
    image = next((SAMPLES / 'coco_tiny').rglob('*.jpg'))
    args = image, config, tmp_path / 'model.pth', '--query', '20,30', '--device', 'cpu'
    run_tool('visualize_routing', *args, '--out-dir', tmp_path / 'out')
    described = json.loads((tmp_path / f'out/{image.stem}_routing.json').read_text())
    for module in described['modules']:
        left, top, right, bottom = module['queries'][0]['region']['box']
        assert left <= 20 < right
        assert top <= 30 < bottom
