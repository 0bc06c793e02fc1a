"""Builds what the rows name. Rivals come from mmdet, imported only where a row needs it."""

from pathlib import Path

import torch
from torch import nn

from mmbiformer.backbones import BiFormer
from mmbiformer.errors import UserError

from .cases import OFFICIAL, RIVALS, Case
from .official_style import official_style

RIVAL_CONFIGS = {
    'swin-t': 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'resnet-50': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
}


def build_biformer(case: Case) -> BiFormer:
    """BiFormer with the row's backend; all rows have the same weights."""
    torch.manual_seed(0)
    options = dict(partition_factor=case.partition_factor, norm_eval=True)
    if case.model == OFFICIAL:
        return official_style(BiFormer(case.arch, **options))
    return BiFormer(case.arch, attention_backend=case.model, **options)


def build_backbone(case: Case) -> nn.Module:
    """A backbone with four outputs, all parameters trained, no stochastic depth."""
    if case.model not in RIVALS:
        return build_biformer(case)
    from mmdet.models import ResNet, SwinTransformer

    # The defaults of both classes are Swin-T and ResNet, trained from the first layer on.
    return SwinTransformer(drop_path_rate=0.0) if case.model == 'swin-t' else ResNet(depth=50)


def build_detector(case: Case) -> nn.Module:
    """RetinaNet with FPN, as the shipped configs and mmdet's own describe it."""
    from mmengine.config import Config
    from mmengine.hub import get_config
    from mmengine.model import initialize
    from mmengine.registry import MODELS, DefaultScope

    if case.model in RIVALS:
        model = get_config(RIVAL_CONFIGS[case.model]).model
        model.backbone.init_cfg = None  # random weights: nothing is downloaded
    else:
        path = Path(case.configs, f'retinanet_biformer-{case.arch}_fpn_1x_coco.py')
        if not path.is_file():
            raise UserError(f"config '{path}' not found: run tools/benchmark.py of the repository")
        model = Config.fromfile(path).model
        model.backbone.partition_factor = case.partition_factor
        if case.model != OFFICIAL:
            model.backbone.attention_backend = case.model
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
    # So that few boxes pass the threshold, as with a trained head; unlike init_weights, no log.
    initialize(detector.bbox_head, detector.bbox_head.init_cfg)
    if case.model == OFFICIAL:
        detector.backbone = official_style(detector.backbone)
    return detector
