"""tools/train.py and tools/test.py on a classifier, and what wrong input is answered with."""

import pickle

import pytest
import torch
from golden import golden_cases, official_state_dict
from mmengine.visualization import Visualizer
from toolbox import IN_PROCESS, ROOT, metrics_of, run_tool, save_untrained

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.experiments.quickstart import quickstart

CONFIG = ROOT / 'configs/classification/biformer_quickstart_shapes.py'
RETINANET = ROOT / 'configs/biformer/retinanet_biformer_quickstart_shapes.py'
ONE_EPOCH = ['train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1']
NUM_VAL = 6


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'single'
    return make_single_shapes(root, num_train=12, num_val=NUM_VAL)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, shapes):
    """The checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp('trained')
    run_tool(
        *('train', CONFIG, '--data-root', shapes, '--work-dir', folder),
        *('--cfg-options', *IN_PROCESS, *ONE_EPOCH),
    )
    return folder / 'epoch_1.pth'


def test_a_trained_classifier_is_tested_with_pictures_and_predictions(tmp_path, shapes, trained):
    out = tmp_path / 'found.pkl'
    run_tool(
        *('test', CONFIG, trained, '--data-root', shapes, '--work-dir', tmp_path),
        *('--show-dir', tmp_path / 'pictures', '--out', out, '--cfg-options', *IN_PROCESS),
    )
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == NUM_VAL
    results = pickle.loads(out.read_bytes())
    assert len(results) == NUM_VAL
    correct = sum((x['gt_label'] == x['pred_label']).item() for x in results)
    assert metrics_of(tmp_path)['accuracy/top1'] == pytest.approx(100 * correct / NUM_VAL)


def test_an_official_file_is_tested_as_it_is(tmp_path, shapes):
    """With weights of the golden case; its 1000 classes are named after numbers."""
    case = golden_cases('official_cloformer.json')['xxs_224']
    torch.save({'model': official_state_dict(case)}, tmp_path / 'official.pth')
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{ROOT / 'configs/classification/cloformer-xxs_8xb128_in1k.py'}'\n"
        "files = dict(type='CustomDataset', data_prefix='validation', ann_file='labels.txt')\n"
        'def loader():\n'
        '    data = dict(files, _delete_=True, pipeline=_base_.test_pipeline)\n'
        '    return dict(batch_size=2, dataset=data)\n'
        'val_dataloader = loader()\n'
        'test_dataloader = loader()\n'
    )
    root = tmp_path / 'data'
    root.mkdir()
    (root / 'validation').symlink_to(shapes / 'validation')
    names = sorted(x.relative_to(shapes / 'validation') for x in shapes.glob('validation/*/*'))
    (root / 'labels.txt').write_text(''.join(f'{x} {900 + i}\n' for i, x in enumerate(names)))
    run_tool(
        *('test', config, tmp_path / 'official.pth', '--data-root', root),
        *('--work-dir', tmp_path / 'work', '--cfg-options', *IN_PROCESS),
    )
    assert 'accuracy/top5' in metrics_of(tmp_path / 'work')
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert '349 tensors matched, 0 dropped, 0 new' in log.read_text()


def test_a_detector_starts_from_the_classifier(tmp_path, trained):
    """Through --pretrained: the backbone's weights are kept, the rest is counted in the log."""
    data = make_shapes(tmp_path / 'shapes', num_train=4, num_val=1)
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    run_tool(
        *('train', RETINANET, '--pretrained', trained, '--data-root', data),
        *('--work-dir', tmp_path, '--cfg-options', *IN_PROCESS, *options),
        *('optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.weight_decay=0'),
    )
    classifier = torch.load(trained, weights_only=False)['state_dict']
    detector = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    stages = {
        name: x
        for name, x in classifier.items()
        if name.startswith('backbone.') and not name.startswith('backbone.norm.')
    }
    learnt = [n for n in stages if 'running' not in n and 'num_batches' not in n]
    assert len(learnt) > 50
    for name in learnt:
        assert torch.equal(detector[name], stages[name]), name
    (log,) = tmp_path.glob('*/*.log')
    counts = f'{len(stages)} tensors matched, 5 (norm) dropped, 6 (norm1, norm2, norm3) new'
    assert f'BiFormer checkpoint: {counts}' in log.read_text()


def test_quickstart_ends_with_the_accuracy_and_what_is_taken_for_what(tmp_path, monkeypatch):
    config = tmp_path / 'small.py'
    config.write_text(
        f"_base_ = '{CONFIG}'\n"
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
        'default_hooks = dict(checkpoint=dict(interval=1))\n'
    )
    monkeypatch.chdir(tmp_path)
    make_single_shapes('data/single_shapes', num_train=12, num_val=NUM_VAL)
    monkeypatch.setattr('mmbiformer.experiments.quickstart.make_single_shapes', lambda root: root)
    # Another run of this process has left mm's usual visualizer, and one of its own behind it.
    Visualizer.get_instance('visualizer')
    Visualizer.get_instance(f'of another run than {tmp_path}')
    text = quickstart(str(config))
    head, row = text.split('\n\n')[1].splitlines()
    assert head.split() == ['top-1']
    assert 0 <= float(row) <= 100
    table = [line for line in text.splitlines() if line.startswith('|')]
    counts = [int(cell) for line in table for cell in line.split() if cell.isdigit()]
    assert sum(counts) == NUM_VAL
    assert len(list((tmp_path / 'work_dirs/small/pictures').glob('*.png'))) == NUM_VAL
    assert 'predictions   work_dirs/small/predictions.pkl' in text


@pytest.fixture
def error(capsys, tmp_path):
    """Run a tool that must fail; returns its one line."""

    def run(tool: str, *args: object) -> str:
        with pytest.raises(SystemExit) as stop:
            run_tool(tool, *args, '--work-dir', tmp_path / 'work')
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if 'error:' in line]
        return line

    return run


def test_data_root_not_found(error):
    line = error('train', CONFIG, '--data-root', '/no/such/folder')
    assert "'/no/such/folder' not found" in line and '--data-root' in line
    imagenet = CONFIG.with_name('biformer-t_8xb128_in1k.py')
    assert 'expects train in it' in error('train', imagenet, '--data-root', '/no/such/folder')


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_missing_label_map(error, tmp_path, shapes, num_workers):
    """Also where it is missed in a process that loads data."""
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{CONFIG}'\n"
        'load, *rest = _base_.train_pipeline\n'
        "label_map = dict(type='mmbiformer.classification.LoadLabelMap', folder='no',\n"
        '    num_classes=6)\n'
        f'train_dataloader = dict(num_workers={num_workers},\n'
        '    dataset=dict(pipeline=[load, label_map, *rest]))\n'
    )
    line = error('train', config, '--data-root', shapes)
    assert line.startswith("error: label map 'no/") and line.endswith('folder of LoadLabelMap')


def test_checkpoints_that_do_not_fit(error, tmp_path, shapes, trained):
    case = golden_cases('official_cloformer.json')['xxs_224']
    torch.save({'model': official_state_dict(case)}, tmp_path / 'official.pth')
    data = ['--data-root', shapes]
    line = error('test', CONFIG, tmp_path / 'official.pth', *data)
    assert '(1000, 256), not (6, 256): set num_classes' in line
    save_untrained(RETINANET, tmp_path / 'detector.pth')
    line = error('test', CONFIG, tmp_path / 'detector.pth', *data)
    assert 'another architecture' in line and 'missing: norm.weight' in line
    line = error('test', RETINANET, trained, '--data-root', tmp_path)
    assert 'lacks' in line
    assert 'name it *.pkl' in error('test', CONFIG, trained, *data, '--out', 'results.json')
