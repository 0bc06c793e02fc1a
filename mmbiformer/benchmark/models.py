"""Builds what the rows name. Rivals come from mmdet, imported only where a row needs it."""

from pathlib import Path

import torch
from torch import nn

from mmbiformer.backbones import CloFormer
from mmbiformer.errors import UserError

from .ablation_rows import build_row
from .cases import CLOFORMERS, OFFICIAL, OFFICIAL_STYLE, PLAIN, RIVALS, TUTORIAL_STYLE, Case
from .families import FAMILY_OF
from .official_cloformer import official_cloformer
from .official_style import official_style

RIVAL_CONFIGS = {
    'swin-t': 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'resnet-50': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    PLAIN: 'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
}


def build_backbone(case: Case) -> nn.Module:
    """The backbone of a row: four outputs, all parameters trained, no stochastic depth."""
    if case.model in RIVALS:
        from mmdet.models import MobileNetV2, ResNet, SwinTransformer

        # The defaults of the classes, with all layers trained.
        if case.model == 'swin-t':
            return SwinTransformer(drop_path_rate=0.0)
        return ResNet(depth=50) if case.model == 'resnet-50' else MobileNetV2()
    torch.manual_seed(0)  # rows of one architecture have the same weights
    if case.level == 'ablation':
        return build_row(case.model, case.partition_factor)
    if case.model in CLOFORMERS:
        return _styled(CloFormer(_cloformer_arch(case), norm_eval=True), case)
    family = FAMILY_OF[case.arch]
    arch = family.archs[case.arch]
    options = dict(partition_factor=case.partition_factor, norm_eval=True)
    if case.model == OFFICIAL:
        return family.official_style(family.backbone(arch, **options))
    return family.backbone(arch, attention_backend=case.model, **options)


def build_detector(case: Case) -> nn.Module:
    """RetinaNet with FPN, as the shipped configs and mmdet's own describe it."""
    from mmengine.model import initialize

    family = FAMILY_OF[case.arch]
    config = family.detector_config.format(arch=case.arch)
    if case.model in CLOFORMERS:
        config = f'cloformer/retinanet_cloformer-{_cloformer_arch(case)}_fpn_1x_coco.py'
    model = _read_model(case, config)
    if case.model not in (*RIVALS, *CLOFORMERS):
        model.backbone.partition_factor = case.partition_factor
        if case.model != OFFICIAL:
            model.backbone.attention_backend = case.model
    detector = _build(model)
    # So that few boxes pass the threshold, as with a trained head; unlike init_weights, no log.
    initialize(detector.bbox_head, detector.bbox_head.init_cfg)
    if case.model == OFFICIAL:
        detector.backbone = family.official_style(detector.backbone)
    elif case.model in CLOFORMERS:
        detector.backbone = _styled(detector.backbone, case)
    return detector


def build_plugged_in(case: Case) -> nn.Module:
    """YOLOX-s, with routed attention where the row says so."""
    row = case.model.removesuffix(TUTORIAL_STYLE)
    model = _read_model(case, f'plugin/yolox-s_{row}_8xb8-300e_coco.py')
    model.data_preprocessor.batch_augments = None  # one of these draws another size
    detector = _build(model)
    # So that few boxes pass the threshold, as with a trained head.
    for conv in (
        *detector.bbox_head.multi_level_conv_cls,
        *detector.bbox_head.multi_level_conv_obj,
    ):
        nn.init.constant_(conv.bias, -4.6)
    return detector if row == case.model else official_style(detector)


def _cloformer_arch(case: Case) -> str:
    return case.model.removeprefix('cloformer-').removesuffix(OFFICIAL_STYLE)


def _styled(cloformer: CloFormer, case: Case) -> nn.Module:
    return official_cloformer(cloformer) if case.model.endswith(OFFICIAL_STYLE) else cloformer


def _read_model(case: Case, config: str) -> dict:
    """The model of a rival's config, or of a shipped one."""
    from mmengine.config import Config
    from mmengine.hub import get_config

    if case.model in RIVAL_CONFIGS:
        model = get_config(RIVAL_CONFIGS[case.model]).model
        model.backbone.init_cfg = None  # random weights: nothing is downloaded
        return model
    path = Path(case.configs, config)
    if not path.is_file():
        raise UserError(f"config '{path}' not found: run tools/benchmark.py of the repository")
    return Config.fromfile(path).model


def _build(model: dict) -> nn.Module:
    from mmengine.registry import MODELS, DefaultScope

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)
