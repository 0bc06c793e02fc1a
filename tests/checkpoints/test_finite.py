"""Files whose weights are not finite are refused, by the name of the tensor."""

import math

import pytest
import torch

from mmbiformer.checkpoints import CheckpointError, list_nonfinite, read_checkpoint

NAME = 'backbone.norm1.weight'


def spoilt(value: float, dtype: torch.dtype = torch.float32) -> dict:
    weight = torch.ones(6, dtype=dtype)
    weight[3] = value
    return {'first': torch.ones(2), NAME: weight}


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('key', ['state_dict', 'model', 'ema_state_dict', None])
def test_refused_by_name(tmp_path, value, dtype, key):
    path = tmp_path / 'spoilt.pth'
    weights = spoilt(value, dtype)
    torch.save({key: weights, 'meta': {}} if key else weights, path)
    kind = 'nan' if math.isnan(value) else 'inf'
    line = rf"spoilt\.pth' holds weights that are not finite: {NAME} \({kind}\)\. .* take an earl"
    with pytest.raises(CheckpointError, match=line):
        read_checkpoint(path)


def test_what_is_no_weight_may_be_anything(tmp_path):
    path = tmp_path / 'fine.pth'
    content = dict(
        state_dict={'weight': torch.ones(2), 'count': torch.tensor(3), 'mask': torch.tensor(True)},
        optimizer=dict(state={0: dict(exp_avg=torch.tensor([math.nan]))}),
        best=torch.tensor([1]),
    )
    torch.save(content, path)
    assert read_checkpoint(path)['state_dict'].keys() == content['state_dict'].keys()


def test_kinds_of_tensors_that_are_not_asked():
    named = dict(
        meta=torch.ones(2, device='meta'),
        sparse=torch.tensor([math.nan]).to_sparse(),
        number=torch.tensor([1]),
        eight=torch.ones(2).to(torch.float8_e4m3fn),
        text='nan',
    )
    assert list_nonfinite(named.items()) == []
