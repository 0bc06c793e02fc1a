"""Channels of backbone, neck and heads are compared, without running the model."""

import logging

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from zoo import load

from mmbiformer.engine.config_checks.channels import check_channels
from mmbiformer.errors import UserError

DETECTION = 'retinanet_biformer_quickstart_shapes'
SEGMENTATION = 'fpn_biformer_quickstart_shapes'
UPERNET = 'upernet_biformer-t_8xb2-160k_ade20k-512x512'
PLUGIN = 'yolox_bra-p3_shapes'
RESNET = 'retinanet_resnet_shapes'
RTMDET = 'rtmdet-s_bra-p3_8xb32-300e_coco'


def check(name: str, device: str = 'meta', **changes) -> torch.nn.Module:
    cfg = load(name)
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        model = MODELS.build(cfg.model)
    check_channels(model, cfg.model, cfg.default_scope)
    return model


# The head of RTMDet has the same convolutions at each level.
@pytest.mark.parametrize('name', [DETECTION, SEGMENTATION, UPERNET, PLUGIN, RESNET, RTMDET])
def test_what_fits_passes_and_stays_as_it_is(name) -> None:
    model = check(name, 'cpu')
    assert model.training
    assert {x.device.type for x in (*model.parameters(), *model.buffers())} == {'cpu'}


@pytest.mark.parametrize(
    ('name', 'key', 'value', 'said'),
    [
        (
            DETECTION,
            'neck.in_channels',
            [64, 128, 999],
            r'in_channels=\[64, 128, 999\]: model.backbone \(BiFormer\) gives maps of '
            r'\[64, 128, 256\] channels',
        ),
        (DETECTION, 'bbox_head.in_channels', 64, r'model.neck \(FPN\) gives maps of \[128, 128'),
        (RESNET, 'neck.in_channels', [32, 64, 128], r'model.backbone \(ResNet\) gives maps of'),
        (UPERNET, 'auxiliary_head.in_index', 1, r'model.auxiliary_head.in_channels=256'),
        (UPERNET, 'decode_head.in_channels', [64, 128, 256, 256], r'in_channels=\[64, 128, 256, '),
        (PLUGIN, 'neck.neck.in_channels', [64, 128, 512], r'model.neck.neck.in_channels=.* \(CSP'),
    ],
)
def test_what_does_not_fit_is_refused(name, key, value, said) -> None:
    with pytest.raises(UserError, match=said) as raised:
        check(name, **{key: value})
    assert f'model.{key.rpartition(".")[0]}' in str(raised.value)


def test_nothing_is_logged_of_how_the_model_runs(caplog) -> None:
    with caplog.at_level(logging.INFO, 'mmbiformer'):
        check(PLUGIN)
        check(DETECTION)
    assert not [x for x in caplog.records if 'attention' in x.message]
