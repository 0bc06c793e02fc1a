"""A checkpoint that would run code, through every tool that takes one: it is refused by name."""

import pytest
import torch
from hostile_files import Call, Name, save
from toolbox import CONFIGS, IN_PROCESS, run_tool

from mmbiformer.datasets.shapes import make_shapes

CONFIG = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', num_train=2, num_val=2)


WAYS = {
    'test': ('test', CONFIG, '{file}'),
    'resume': ('train', CONFIG, '--resume', '{file}'),
    'resume the latest': ('train', CONFIG, '--resume'),
    'pretrained': ('train', CONFIG, '--pretrained', '{file}'),
    'load_from': ('train', CONFIG, '--cfg-options', 'load_from={file}'),
    'init_cfg': (
        *('train', CONFIG, '--cfg-options', 'model.backbone.init_cfg.type=Pretrained'),
        'model.backbone.init_cfg.checkpoint={file}',
    ),
    'size_ap': ('size_ap', '--config', CONFIG, '--checkpoint', '{file}'),
    'converter': ('model_converters/biformer_to_mm', '{file}', '{folder}/converted.pth'),
}


@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
@pytest.mark.parametrize('old', [False, True], ids=['archive', 'old format'])
def test_a_hostile_checkpoint_is_one_line(way, old, shapes, tmp_path, capsys):
    file = tmp_path / 'epoch_1.pth'
    call = Call(Name('posix.mkdir'), (str(tmp_path / 'harm'),))
    weights = {'backbone.norm0.weight': torch.ones(64)}
    save(dict(state_dict=weights, meta=call, message_hub={}, optimizer={}), file, old)
    (tmp_path / 'last_checkpoint').write_text(str(file))
    tool, *args = [str(x).format(file=file, folder=tmp_path) for x in way]
    if tool in ('test', 'train'):
        options = [] if '--cfg-options' in args else ['--cfg-options']
        args += [*options, *IN_PROCESS, '--data-root', shapes, '--work-dir', tmp_path]
    elif tool == 'size_ap':
        args += ['--data-root', shapes, '--out-dir', tmp_path / 'report']
    with pytest.raises(SystemExit) as stop:
        run_tool(tool, *args)
    assert stop.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
    reason = f"'{file}' is not read, since it asks for posix.mkdir: "
    if old and way == WAYS['resume the latest']:  # such a file is not even looked into
        reason = 'epoch_1.pth is truncated, or no checkpoint of torch 1.6 or later'
    assert reason in line
    assert not (tmp_path / 'harm').exists()
