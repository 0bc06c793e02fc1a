"""Automatic mixed precision on CPUs: what runs in bfloat16 there, and what is given float32."""

import pytest
import torch
from mmcv.ops import nms, roi_align
from mmengine.model import BaseModule
from mmengine.registry import OPTIM_WRAPPERS, DefaultScope
from toolbox import IN_PROCESS, ROOT, run_tool
from torch import nn

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.datasets.single_shapes import make_single_shapes
from mmbiformer.engine import device

WRAPPER = dict(type='mmbiformer.CPUAmpOptimWrapper')
BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5]])


class Model(BaseModule):
    """A detector in small: what it is made of, and a list of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.rpn_head = nn.Sequential()
        self.rpn_head.add_module('conv', nn.Linear(2, 2))
        self.bbox_head = nn.ModuleList([nn.Linear(2, 2)])
        self.decode_head = Pair()


class Pair(BaseModule):
    """A head that returns tensors in lists in a tuple."""

    def forward(self, x):
        return [x @ x], x @ x


@pytest.fixture
def wrapped():
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return model, OPTIM_WRAPPERS.build(dict(**WRAPPER, optimizer=optimizer))


def test_products_are_in_bfloat16_and_what_necks_and_heads_return_in_float32(wrapped):
    model, wrapper = wrapped
    x, tokens = torch.rand(1, 2, 8, 8), torch.rand(2, 2)
    with wrapper.optim_context(model):
        assert model.backbone(x).dtype == torch.bfloat16
        assert model.rpn_head.conv(tokens).dtype == torch.bfloat16
        for module in (model.rpn_head, model.bbox_head[0]):
            assert module(tokens).dtype == torch.float32
        (first,), second = model.decode_head(tokens)
        assert first.dtype == second.dtype == torch.float32
        map_ = model.neck(model.backbone(x))
        assert map_.dtype == torch.float32
        wrapper.update_params(map_.square().mean())
    assert model.neck(model.backbone(x)).dtype == torch.float32
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_operators_of_mmcv_need_it():
    """Where one of these takes bfloat16, less has to return float32."""
    with pytest.raises(RuntimeError, match='BFloat16'):
        nms(BOXES.bfloat16(), torch.ones(2).bfloat16(), 0.5)
    regions = torch.cat([torch.zeros(2, 1), BOXES], dim=1)
    with pytest.raises(RuntimeError, match='BFloat16'):
        roi_align(torch.rand(1, 2, 8, 8).bfloat16(), regions.bfloat16(), 2)


@pytest.mark.parametrize(
    ('config', 'make_data', 'loop'),
    [
        ('biformer/retinanet_biformer_quickstart_shapes.py', make_shapes, 'max_epochs=1'),
        ('biformer/fpn_biformer_quickstart_shapes.py', make_shapes, 'max_iters=1'),
        ('classification/biformer_quickstart_shapes.py', make_single_shapes, 'max_epochs=1'),
    ],
    ids=['detection', 'segmentation', 'classification'],
)
def test_training_by_the_tool(monkeypatch, tmp_path, config, make_data, loop, capfd):
    """As on a CPU with units for bfloat16; without, the same is computed, more slowly."""
    monkeypatch.setattr(device, 'bf16_units', lambda: ['amx_bf16'])
    data = make_data(tmp_path / 'shapes', num_train=6, num_val=6)
    run_tool(
        *('train', ROOT / 'configs' / config, '--data-root', data),
        *('--work-dir', tmp_path / 'run', '--amp', '--cfg-options', *IN_PROCESS),
        *('train_dataloader.batch_size=6', f'train_cfg.{loop}', 'train_cfg.val_interval=1'),
    )
    log = capfd.readouterr()
    assert 'AMP is in bfloat16 on this CPU, which has amx_bf16' in log.out + log.err
    (path,) = (tmp_path / 'run').glob('[ei]*_1.pth')
    state = torch.load(path, weights_only=False)['state_dict']
    assert all(x.isfinite().all() for x in state.values() if x.is_floating_point())
    assert not any(x.dtype == torch.bfloat16 for x in state.values())
