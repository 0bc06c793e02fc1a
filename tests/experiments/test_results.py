"""What a detector finds, written in COCO's result format."""

import json

import pytest
from toolbox import CONFIGS, save_untrained

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.engine import load_config
from mmbiformer.errors import UserError
from mmbiformer.experiments.results import write_results

# Two of the six classes; as it has not learnt, every score counts.
CONFIG = f"""
_base_ = '{CONFIGS / 'retinanet_biformer_quickstart_shapes.py'}'
model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(score_thr=0.0))
classes = dict(metainfo=dict(classes=('circle', 'square')))
test_dataloader = dict(dataset=classes, num_workers=0, persistent_workers=False)
"""


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A config with its data, and the checkpoint of an untrained model."""
    folder = tmp_path_factory.mktemp('results')
    (folder / 'config.py').write_text(CONFIG)
    save_untrained(folder / 'config.py', folder / 'untrained.pth')
    data_root = make_shapes(folder / 'shapes', num_train=1, num_val=2)

    def load(**options):
        cfg = load_config(
            str(folder / 'config.py'), data_root=str(data_root), work_dir=str(folder / 'work')
        )
        cfg.test_evaluator.update(options)
        return cfg

    return load, str(folder / 'untrained.pth')


def test_boxes_of_the_classes_of_the_config(prepared, tmp_path):
    load, checkpoint = prepared
    found = write_results(load(), checkpoint, tmp_path / 'new/run')
    assert found.classes == ('circle', 'square')
    assert found.detections == dict(bbox=str(tmp_path / 'new/run.bbox.json'))
    with open(found.annotations) as file:
        content = json.load(file)
    wanted = {x['id'] for x in content['categories'] if x['name'] in found.classes}
    with open(found.detections['bbox']) as file:
        records = json.load(file)
    assert {x['category_id'] for x in records} == wanted
    assert {x['image_id'] for x in records} == {x['id'] for x in content['images']}
    assert [x.name for x in (tmp_path / 'new').iterdir()] == ['run.bbox.json']


def test_masks_of_a_detector_without(prepared, tmp_path):
    load, checkpoint = prepared
    message = (
        'metric segm needs masks, and the detector predicts none: take it from test_evaluator'
    )
    with pytest.raises(UserError, match=message):
        write_results(load(metric='segm'), checkpoint, tmp_path / 'run')
    assert not list(tmp_path.iterdir()), 'boxes that nobody asked for'


@pytest.mark.parametrize(
    ('options', 'iou_type', 'message'),
    [
        (dict(metric='bbox'), 'segm', 'metric is bbox, not segm: add it to test_evaluator'),
        (dict(metric='proposal'), None, 'metric is proposal, and neither bbox nor segm: add one'),
        (
            dict(type='DumpDetResults'),
            None,
            'the config has no CocoMetric among its test_evaluator',
        ),
    ],
    ids=['not judged', 'proposals', 'another metric'],
)
def test_what_does_not_fit_is_said_before_the_run(prepared, tmp_path, options, iou_type, message):
    with pytest.raises(UserError, match=message):
        write_results(prepared[0](**options), 'none.pth', tmp_path / 'run', iou_type)
