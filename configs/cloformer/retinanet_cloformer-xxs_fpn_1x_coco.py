# RetinaNet 1x with CloFormer-XXS, by the recipe of BiFormer: its authors published no detector.
_base_ = '../biformer/retinanet_biformer-s_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.CloFormer',
        arch='xxs',
        out_indices=(1, 2, 3),
        norm_eval=True,
    ),
    neck=dict(in_channels=[64, 128, 256]),
)
