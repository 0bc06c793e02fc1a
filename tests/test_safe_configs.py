"""Every shipped config takes the loader that runs nothing, and the hooks of safe runs."""

import pytest
from mmengine.config import Config
from toolbox import ROOT

CONFIGS = sorted(
    str(path.relative_to(ROOT / 'configs'))
    for path in ROOT.glob('configs/*/*.py')
    if path.parent.name != '_base_'
)


def test_there_are_configs():
    assert len(CONFIGS) > 60


@pytest.mark.parametrize('name', CONFIGS)
def test_checkpoints_are_read_and_written_safely(name):
    cfg = Config.fromfile(ROOT / 'configs' / name, import_custom_modules=False)
    assert cfg.custom_imports == dict(imports=['mmbiformer'], allow_failed_imports=False)
    hook = cfg.default_hooks.checkpoint
    assert hook.type == 'mmbiformer.CrashSafeCheckpointHook'
    assert cfg.default_hooks.exact_resume.type == 'mmbiformer.ExactResumeHook'
    assert hook.get('max_keep_ckpts', -1) != 1  # it keeps two, and would say so at each start
    assert cfg.default_hooks.stop == dict(type='mmbiformer.SafeStopHook')
