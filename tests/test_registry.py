"""The package builds from any mm config with no custom_imports, and imports no more than it needs.

Each case runs in a fresh interpreter, as what another test imported would hide a missing import.
"""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    ('package', 'name'),
    [
        ('mmdet', 'type="mmbiformer.BiFormer"'),
        ('mmseg', 'type="mmbiformer.BiFormer"'),
        ('mmengine', 'type="mmbiformer.BiFormer"'),
        ('mmengine', 'type="BiFormer", _scope_="mmbiformer"'),
    ],
    ids=['mmdet', 'mmseg', 'mmengine', 'scope'],
)
def test_builds_from_the_registry_of(package, name):
    module = run(
        f'from {package}.registry import MODELS\n'
        f'cfg = dict({name}, arch="t", out_indices=(0, ))\n'
        'print(type(MODELS.build(cfg)).__module__)'
    )
    assert module == 'mmbiformer.backbones.biformer'


@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'mmengine'])
def test_builds_a_rival_in_swins_layout_from_the_registry_of(package):
    module = run(
        f'from {package}.registry import MODELS\n'
        'cfg = dict(type="mmbiformer.SwinLayout", attention="sequential_axial", '
        'out_indices=(0, ))\n'
        'print(type(MODELS.build(cfg).stages[0][0].attn).__module__)'
    )
    assert module == 'mmbiformer.rivals.axial'


@pytest.mark.parametrize(
    ('module', 'absent'),
    [
        ('mmbiformer.ops', ['torchvision', 'einops', 'mmengine', 'mmcv', 'mmdet', 'mmseg']),
        ('mmbiformer.layers', ['torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg']),
        ('mmbiformer.backbones', ['torchvision', 'mmcv', 'mmdet', 'mmseg', 'mmbiformer.rivals']),
        ('mmbiformer.rivals', ['torchvision', 'mmcv', 'mmdet', 'mmseg']),
    ],
)
def test_imports_no_more_than_it_needs(module, absent):
    loaded = run(f'import sys, {module}; print(*sys.modules)').split()
    assert module in loaded
    assert not set(absent) & set(loaded)


def test_the_class_is_the_packages_own():
    import mmbiformer
    from mmbiformer.registry import MODELS

    assert MODELS.get('mmbiformer.BiFormer') is MODELS.get('BiFormer') is mmbiformer.BiFormer
    with pytest.raises(AttributeError, match="'mmbiformer' has no attribute 'BiFromer'"):
        mmbiformer.BiFromer  # noqa: B018


def test_necks_build_in_detectors_of_mmdet():
    kind = run(
        'from torch import nn\n'
        'from mmbiformer.registry import NECKS\n'
        'from mmdet.registry import MODELS\n'
        'class Plain(nn.Identity): pass\n'
        'NECKS.register_module()(Plain)\n'
        'backbone = dict(type="mmbiformer.BiFormer", arch="t", out_indices=(0, ))\n'
        'model = dict(type="SingleStageDetector", backbone=backbone)\n'
        'model.update(neck=dict(type="mmbiformer.Plain"), bbox_head=dict(type="Plain"))\n'
        'MODELS.register_module()(type("Plain", (nn.Module, ), dict(__init__=lambda self, **_: '
        'nn.Module.__init__(self))))\n'
        'print(type(MODELS.build(model).neck) is Plain)'
    )
    assert kind == 'True'


def test_hooks_build_from_a_run():
    text = run(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS as ROOT\n'
        'from mmbiformer.registry import HOOKS\n'
        'HOOKS.register_module()(type("Quiet", (Hook, ), {}))\n'
        'print(type(ROOT.build(dict(type="mmbiformer.Quiet"))).__name__)'
    )
    assert text == 'Quiet'
