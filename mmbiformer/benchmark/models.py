"""Builds what the rows name. Rivals come from mmdet, imported only where a row needs it."""

from pathlib import Path

import torch
from torch import nn

from mmbiformer.errors import UserError

from .cases import OFFICIAL, RIVALS, Case
from .families import FAMILY_OF

RIVAL_CONFIGS = {
    'swin-t': 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'resnet-50': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
}


def build_backbone(case: Case) -> nn.Module:
    """The backbone of a row: four outputs, all parameters trained, no stochastic depth."""
    if case.model in RIVALS:
        from mmdet.models import ResNet, SwinTransformer

        # The defaults of both classes are Swin-T and ResNet, trained from the first layer on.
        return SwinTransformer(drop_path_rate=0.0) if case.model == 'swin-t' else ResNet(depth=50)
    family = FAMILY_OF[case.arch]
    arch = family.archs[case.arch]
    options = dict(partition_factor=case.partition_factor, norm_eval=True)
    torch.manual_seed(0)  # all rows have the same weights
    if case.model == OFFICIAL:
        return family.official_style(family.backbone(arch, **options))
    return family.backbone(arch, attention_backend=case.model, **options)


def build_detector(case: Case) -> nn.Module:
    """RetinaNet with FPN, as the shipped configs and mmdet's own describe it."""
    from mmengine.config import Config
    from mmengine.hub import get_config
    from mmengine.model import initialize
    from mmengine.registry import MODELS, DefaultScope

    family = FAMILY_OF[case.arch]
    if case.model in RIVALS:
        model = get_config(RIVAL_CONFIGS[case.model]).model
        model.backbone.init_cfg = None  # random weights: nothing is downloaded
    else:
        path = Path(case.configs, family.detector_config.format(arch=case.arch))
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
        detector.backbone = family.official_style(detector.backbone)
    return detector
