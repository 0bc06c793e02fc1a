"""tools/size_ap.py as its users run it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from coco_samples import random_coco
from other_formats import (
    as_box_lists,
    as_predictions_json,
    coco_content,
    coco_results,
    random_sample,
    write_images,
    write_json,
    write_labels,
)
from pycocotools.coco import COCO
from toolbox import CONFIGS, ROOT, SAMPLES, run_tool, save_untrained

from mmbiformer.datasets.shapes import make_shapes

DETECTION = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'


@pytest.fixture
def files(tmp_path):
    content, results = random_coco(np.random.default_rng(0), 8)
    for name, data in (('gt', content), ('a', results), ('b', results[::2])):
        (tmp_path / f'{name}.json').write_text(json.dumps(data))
    return tmp_path


def fails(capsys, *options) -> str:
    with pytest.raises(SystemExit) as stopped:
        run_tool('size_ap', *options)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_two_result_files(files, capsys):
    out = files / 'report'
    run_tool(
        *('size_ap', '--ann', files / 'gt.json', '--results', files / 'a.json', files / 'b.json'),
        *('--out-dir', out, '--bootstrap', 100),
    )
    printed = capsys.readouterr().out
    for name in ('size_ap.json', 'size_ap.csv', 'size_ap.html', 'size_ap.png'):
        assert (out / name).stat().st_size > 1000
        assert f'wrote {out / name}' in printed
    assert 'b minus a' in printed
    report = json.loads((out / 'size_ap.json').read_text())
    assert report['bootstrap']['num_resamples'] == 100
    assert report['made']['command'].startswith('python tools/size_ap.py --ann')


@pytest.fixture
def others(tmp_path):
    """The same data in COCO's files and in those of other frameworks."""
    sample = random_sample(0)
    content, results = coco_content(sample), coco_results(sample)
    write_json(tmp_path / 'gt.json', content)
    write_json(tmp_path / 'coco.json', results)
    write_json(tmp_path / 'predictions.json', as_predictions_json(results, content))
    write_json(tmp_path / 'lists.json', as_box_lists(results, content))
    write_images(tmp_path / 'images/val', sample)
    write_labels(tmp_path / 'labels/val', sample.objects)
    write_labels(tmp_path / 'run/labels', sample.found)
    (tmp_path / 'data.yaml').write_text('names: {0: kind 0, 1: kind 1, 2: kind 2}')
    return tmp_path


def test_results_of_four_formats(others, capsys):
    names = ['coco.json', 'predictions.json', 'lists.json', 'run/labels']
    run_tool(
        *('size_ap', '--ann', others / 'gt.json', '--results', *(others / x for x in names)),
        *('--bootstrap', 0, '--out-dir', others / 'report'),
    )
    report = json.loads((others / 'report/size_ap.json').read_text())
    assert [x['name'] for x in report['models']] == ['coco', 'predictions', 'lists', 'labels']
    assert report['models'][0]['coco']['AP'] > 0.1
    for difference in report['differences']:
        assert max(abs(x['AP']) for x in difference['sizes'] if x['AP'] is not None) < 1e-12


def test_a_folder_of_labels_as_ground_truth(others, capsys):
    labels, images = ('--ann', others / 'labels/val'), ('--images', others / 'images/val')
    results = ('--results', others / 'run/labels', others / 'predictions.json')
    out = ('--bootstrap', 0, '--out-dir', others / 'report')
    run_tool('size_ap', *labels, *images, *results, *out, '--classes', others / 'data.yaml')
    printed = capsys.readouterr().out
    assert '1 of 8 images have no label file, and no objects' in printed
    report = json.loads((others / 'report/size_ap.json').read_text())
    assert report['ground_truth']['categories'] == ['kind 0', 'kind 1', 'kind 2']
    run_tool('size_ap', '--ann', others / 'gt.json', '--results', others / 'coco.json', *out)
    expected = json.loads((others / 'report/size_ap.json').read_text())['models'][0]['coco']
    for model in report['models']:
        assert model['coco'] == pytest.approx(expected, abs=1e-12)
    page = (others / 'report/size_ap.html').read_text()
    assert 'drawn on grey' in page, 'without --images'
    run_tool('size_ap', *labels, *images, *results, *out)
    page = (others / 'report/size_ap.html').read_text()
    assert 'drawn on grey' not in page

    assert '--images names their folder, and is not given' in fails(capsys, *labels, *results)
    (others / 'run/labels/000000000007.txt').write_text('0 .5 .5 .1\n')
    message = fails(capsys, *labels, *images, *results)
    assert message.endswith(
        "labels/000000000007.txt:1': 4 columns are neither a box nor a polygon: a box has 6, a "
        'polygon 8, 10 or more'
    )
    message = fails(capsys, *labels, *images, *results, '--classes', others / 'gone.yaml')
    assert "gone.yaml' cannot be read" in message
    config = ('--config', 'x', '--checkpoint', 'y')
    for option in (('--classes', others / 'data.yaml'), ('--class-numbers', 'ids')):
        assert 'give either' in fails(capsys, *config, *option)


def test_class_numbers_that_are_not_clear(others, capsys):
    lists = json.loads((others / 'lists.json').read_text())
    for entry in lists:
        entry['labels'] = [min(x, 2) for x in entry['labels']]
    write_json(others / 'lists.json', lists)
    command = ('--ann', others / 'gt.json', '--results', others / 'lists.json')
    command += ('--bootstrap', 0, '--out-dir', others / 'report')
    message = fails(capsys, *command)
    assert "lists.json' fit the categories of '" in message
    assert message.endswith('--class-numbers says what numbers are')
    run_tool('size_ap', *command, '--class-numbers', 'ids')


def run_without(modules, *command):
    """A tool in a process of its own, where these modules are not installed."""
    code = (
        f'import runpy, sys; sys.modules.update(dict.fromkeys({modules}))\n'
        f"runpy.run_path({str(ROOT / 'tools')!r} + '/' + sys.argv.pop(1), run_name='__main__')"
    )
    parts = [sys.executable, '-c', code, *command]
    return subprocess.run(list(map(str, parts)), capture_output=True, text=True)


MM = ['mmengine', 'mmcv', 'mmdet', 'mmseg']


def test_files_are_judged_without_mm_packages(files):
    command = ['size_ap.py', '--ann', files / 'gt.json', '--results', files / 'a.json']
    command += ['--bootstrap', 0, '--out-dir', files / 'report']
    done = run_without(MM, *command)
    assert done.returncode == 0, done.stderr
    assert (files / 'report/size_ap.html').is_file()
    done = run_without([*MM, 'prettytable'], *command)
    assert done.returncode == 2
    remedy = 'pip install -e ".[evaluation]"'
    assert done.stderr.splitlines()[-1] == f'error: prettytable is not installed: {remedy}'


def test_own_ranges_without_bootstrap(files, capsys):
    run_tool(
        *('size_ap', '--ann', files / 'gt.json', '--results', files / 'a.json'),
        *('--ranges', 'tiny=0-16', 'rest=16-', '--bootstrap', 0, '--out-dir', files / 'report'),
    )
    report = json.loads((files / 'report/size_ap.json').read_text())
    assert [x['name'] for x in report['ranges'][4:]] == ['tiny', 'rest']
    assert report['bootstrap'] is None


def test_errors_are_one_line(files, capsys):
    ann, results = ('--ann', files / 'gt.json'), ('--results', files / 'a.json')
    assert 'give either --ann and --results (and --images), or --config' in fails(capsys, *ann)
    message = fails(capsys, *ann, *results, '--config', 'x', '--checkpoint', 'y')
    assert 'give either' in message
    assert "nothing.json' not found" in fails(capsys, *ann, '--results', files / 'nothing.json')
    text = (files / 'a.json').read_text()
    (files / 'a.json').write_text(text[:-100])
    message = fails(capsys, *ann, *results)
    assert message.startswith('error: ')
    assert "a.json' (" in message and 'perhaps truncated' in message
    wrong = ('--images', files / 'gone')
    assert f"--images '{files / 'gone'}' is no folder" in fails(capsys, *ann, *results, *wrong)
    wrong = ('--out-dir', files / 'a.json')
    assert "a.json' is a file: name a folder" in fails(capsys, *ann, *results, *wrong)
    assert 'is not a COCO annotation file' in fails(
        capsys, '--ann', files / 'b.json', '--results', files / 'b.json'
    )


def test_a_config_and_a_checkpoint(tmp_path, capsys):
    data_root = make_shapes(tmp_path / 'shapes', num_train=1, num_val=3)
    checkpoint, config = tmp_path / 'untrained.pth', tmp_path / 'all_scores.py'
    config.write_text(f"_base_ = '{DETECTION}'\nmodel = dict(test_cfg=dict(score_thr=0.0))\n")
    save_untrained(config, checkpoint)
    out = tmp_path / 'report'
    run_tool(
        *('size_ap', '--config', config, '--checkpoint', checkpoint, '--data-root', data_root),
        *('--out-dir', out, '--bootstrap', 100),
    )
    report = json.loads((out / 'size_ap.json').read_text())
    assert report['ground_truth']['num_images'] == 3
    assert report['models'][0]['name'] == 'all_scores'
    assert report['models'][0]['num_detections'] > 100
    assert len(json.loads((out / 'all_scores.bbox.json').read_text())) > 100
    message = fails(
        capsys,
        *('--config', config, '--checkpoint', checkpoint, '--data-root', data_root),
        *('--iou-type', 'segm', '--out-dir', out),
    )
    assert "the config's metric is bbox, not segm: add it to test_evaluator" in message


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_real_images_with_perturbed_ground_truth(tmp_path, capsys, iou_type):
    folder = SAMPLES / 'coco_tiny'
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there: set MMBIFORMER_SAMPLES')
    annotations = folder / 'annotations/instances_train2017.json'
    api = COCO(annotations)
    rng = np.random.default_rng(0)
    results = []
    for record in api.loadAnns(api.getAnnIds()):
        box = np.array(record['bbox']) + rng.normal(0, 0.05, 4) * record['bbox'][2]
        found = dict(image_id=record['image_id'], category_id=record['category_id'])
        found.update(score=float(rng.random()), bbox=[*box[:2], *box[2:].clip(1)])
        if iou_type == 'segm':
            rle = api.annToRLE(record)
            found['segmentation'] = dict(size=rle['size'], counts=rle['counts'].decode())
        results.append(found)
    (tmp_path / 'found.json').write_text(json.dumps(results))
    run_tool(
        *('size_ap', '--ann', annotations, '--results', tmp_path / 'found.json'),
        *('--images', folder / 'train2017', '--iou-type', iou_type),
        *('--bootstrap', 100, '--out-dir', tmp_path / 'report'),
    )
    report = json.loads((tmp_path / 'report/size_ap.json').read_text())
    sizes = {x['name']: x for x in report['models'][0]['sizes']}
    assert sizes['all']['num_objects'] == 284
    assert [sizes[x]['num_objects'] for x in ('small', 'medium', 'large')] == [151, 94, 39]
    assert sizes['512+']['AP'] is None
    low, high = sizes['all']['intervals']['AP']
    assert low <= sizes['all']['AP'] <= high
    if iou_type == 'segm':
        assert sizes['all']['AP'] > 0.95, 'its masks are the ground truth'
