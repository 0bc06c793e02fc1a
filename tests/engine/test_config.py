"""Loading configs, and what a mistyped name or option is answered with."""

from pathlib import Path

import pytest

from mmbiformer.engine import config, load_config
from mmbiformer.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs/biformer'
RETINANET = CONFIGS / 'retinanet_biformer-s_fpn_1x_coco.py'
UPERNET = CONFIGS / 'upernet_biformer-s_8xb2-160k_ade20k-512x512.py'


def test_work_dir_is_named_after_the_config() -> None:
    assert load_config(str(RETINANET)).work_dir == f'work_dirs/{RETINANET.stem}'
    assert load_config(str(RETINANET), work_dir='here').work_dir == 'here'


def test_options_override() -> None:
    cfg = load_config(
        str(RETINANET),
        cfg_options={'model.backbone.arch': 't', 'randomness.seed': 1, 'load_from': 'x.pth'},
    )
    assert cfg.model.backbone.arch == 't'
    assert cfg.randomness.seed == 1
    assert cfg.load_from == 'x.pth'


def test_missing_config_suggests_the_nearest() -> None:
    mistyped = CONFIGS / 'retinanet_biformer-s_fpn_1x_cocoo.py'
    with pytest.raises(UserError, match=r"not found: did you mean '.*-s_fpn_1x_coco\.py'"):
        load_config(str(mistyped))


@pytest.mark.parametrize(
    ('option', 'mistyped', 'nearest'),
    [
        ('optim_wraper.optimizer.lr', 'optim_wraper', 'optim_wrapper'),
        ('optim_wrapper.optimzer.lr', 'optimzer', 'optimizer'),
        ('optim_wrapper.optimizer.weight_deacy', 'weight_deacy', 'weight_decay'),
        ('param_scheduler.1.milestone', 'milestone', 'milestones'),
    ],
)
def test_mistyped_option_suggests_the_nearest(option, mistyped, nearest) -> None:
    with pytest.raises(UserError, match=f"no '{mistyped}': did you mean '{nearest}'") as raised:
        load_config(str(RETINANET), cfg_options={option: 1.0})
    assert option.partition(mistyped)[0] + mistyped in str(raised.value)


def test_a_mistyped_key_of_a_file_is_answered_as_an_option_is(tmp_path) -> None:
    mistyped = tmp_path / 'mistyped.py'
    mistyped.write_text(f"_base_ = '{RETINANET}'\nmodel = dict(backbone=dict(drop_path=0.1))\n")
    said = "model.backbone.drop_path=0.1: BiFormer takes no 'drop_path': did you mean 'drop_path_"
    with pytest.raises(UserError, match=said):
        load_config(str(mistyped))
    with pytest.raises(UserError, match=said):
        load_config(str(RETINANET), cfg_options={'model.backbone.drop_path': 0.1})


def test_an_unknown_first_key_of_an_option() -> None:
    """A file may have variables; nothing reads those of the command line."""
    with pytest.raises(UserError, match="--cfg-options my_lr: the config has no 'my_lr'"):
        load_config(str(RETINANET), cfg_options={'my_lr': 1.0})


def test_nothing_is_said_of_an_optional_package_of_mm(monkeypatch, capsys) -> None:
    def say(module: str) -> None:
        print('Could not import OneDL. Skipping OneDL datasets.', f'from {module}', sep='\n')

    monkeypatch.setattr(config.importlib, 'import_module', say)
    config._import_quietly('mmdet')
    assert capsys.readouterr().out == 'from mmdet.datasets\nfrom mmdet.models\n'


def test_new_keys_are_taken() -> None:
    options = {'optim_wrapper.clip_grad.max_norm': 1.0, 'train_dataloader.dataset.indices': 4}
    cfg = load_config(str(RETINANET), cfg_options=options)
    assert cfg.optim_wrapper.clip_grad.max_norm == 1.0
    assert cfg.train_dataloader.dataset.indices == 4


def test_option_that_cannot_be_merged() -> None:
    with pytest.raises(UserError, match=r'--cfg-options param_scheduler\.9\.end=3 cannot be'):
        load_config(str(RETINANET), cfg_options={'param_scheduler.9.end': 3})


def test_broken_config_names_the_file(tmp_path) -> None:
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(')
    with pytest.raises(UserError, match=r'broken\.py.*cannot be read'):
        load_config(str(broken))


@pytest.mark.parametrize('config', [RETINANET, UPERNET], ids=lambda path: path.stem)
def test_data_root_reaches_every_dataset_and_metric(config) -> None:
    cfg = load_config(str(config), data_root='/somewhere')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == '/somewhere'
    if config is RETINANET:
        expected = '/somewhere/annotations/instances_val2017.json'
        assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == expected


def test_data_root_reaches_wrapped_datasets(tmp_path) -> None:
    wrapped = tmp_path / 'wrapped.py'
    wrapped.write_text(
        f"_base_ = '{RETINANET}'\n"
        "part = dict(type='CocoDataset', data_root='data/coco/', ann_file='a.json')\n"
        'train_dataloader = dict(dataset=dict(_delete_=True, type="RepeatDataset", times=2,\n'
        '    dataset=dict(type="ConcatDataset", datasets=[part, part])))\n'
    )
    cfg = load_config(str(wrapped), data_root='/somewhere')
    parts = cfg.train_dataloader.dataset.dataset.datasets
    assert [part.data_root for part in parts] == ['/somewhere'] * 2
