"""Keys and names that nothing knows are refused, and what works is not."""

import random

import pytest
from config_mutations import TEXT, distinct, is_refused, misspell
from mm_configs import configs_of
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from zoo import CONFIGS, load, read

from mmbiformer.engine.config_checks.keys import check_config, find_mistakes
from mmbiformer.errors import UserError

DETECTION = 'retinanet_biformer-s_fpn_1x_coco'
# So many of each package's own; tests/helpers/mm_configs.py takes all.
NUM_CONFIGS = 8
NUM_LEAVES = 80


@pytest.mark.parametrize('name', CONFIGS)
def test_shipped_configs_pass(name) -> None:
    assert not find_mistakes(read(name))


@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'mmpretrain'])
def test_configs_of_mm_pass(package) -> None:
    checked = 0
    for path in random.Random(0).sample(configs_of(package), NUM_CONFIGS):
        try:
            cfg = Config.fromfile(path)
        except Exception:
            continue  # it needs a package or file that is not installed
        checked += 1
        assert not find_mistakes(cfg), path
    assert checked > NUM_CONFIGS // 2


def test_a_leaf_misspelt_is_refused() -> None:
    rng = random.Random(0)
    found = [x for x in distinct([*CONFIGS][::7]) if x.kind != TEXT and len(x.text) > 3]
    chosen = rng.sample(found, NUM_LEAVES)
    accepted = [x for x in chosen if not is_refused(x, misspell(x.text, rng))]
    assert len(accepted) <= NUM_LEAVES // 20, accepted


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('model.backbone.drop_path', 0.1, "BiFormer takes no 'drop_path': did you mean 'drop_pa"),
        ('model.backbone.type', 'mmbiformer.BiFromer', 'nearest are mmbiformer.BiFormer, '),
        ('model.test_cfg.score_thrr', 0.1, "reads no 'score_thrr': did you mean 'score_thr'"),
        ('default_hooks.checkpoint.save_best', 'coco/bbox_mAPP', "mean 'coco/bbox_mAP'"),
        ('optim_wrapper.paramwise_cfg.norm_decay', 0, "did you mean 'norm_decay_mult'"),
        ('env_cfg.mp_cfg.mp_start_methd', 'fork', "did you mean 'mp_start_method'"),
        ('default_scop', 'mmdet', "did you mean 'default_scope'"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_remedy(option, value, said) -> None:
    cfg = load(DETECTION)
    cfg.merge_from_dict({option: value})
    with pytest.raises(UserError) as raised:
        check_config(cfg)
    assert str(raised.value).startswith(option) and said in str(raised.value)


def test_a_class_without_arguments_takes_none() -> None:
    cfg = load(DETECTION)
    cfg.custom_hooks = [dict(type='SyncNormHook', priority=48), dict(type='SyncNormHook', x=1)]
    (line,) = find_mistakes(cfg)
    assert line.startswith("custom_hooks.1.x=1: SyncNormHook takes no 'x'")


def test_the_message_is_short() -> None:
    """mmdet alone has hundreds of models."""
    cfg = load(DETECTION)
    cfg.model.backbone = dict(type='Bifo', a=1)
    cfg.model.neck.xyz = 1
    with pytest.raises(UserError) as raised:
        check_config(cfg)
    assert len(str(raised.value)) < 400
    assert 'known' in str(raised.value) and '1 more mistake' in str(raised.value)


@MODELS.register_module(force=True)
class TakesAnything(BaseModule):
    """A user's own part, with keys that cannot be seen and parts that no registry has."""

    def __init__(self, inner: dict | None = None, **options) -> None:
        super().__init__()
        self.options = options


def test_own_classes_take_what_they_will() -> None:
    cfg = load(DETECTION)
    inner = dict(type='xyzzy', grue=1)
    cfg.model.backbone = dict(type='TakesAnything', inner=inner, anything=3, modes=['plugh'])
    assert not find_mistakes(cfg)


def test_a_config_may_have_keys_of_its_own() -> None:
    cfg = load(DETECTION)
    cfg.merge_from_dict(dict(max_lr=0.1, my_pipeline=[dict(tpye='x')], num_classes=3))
    assert not find_mistakes(cfg)
