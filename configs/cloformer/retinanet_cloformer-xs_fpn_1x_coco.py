_base_ = './retinanet_cloformer-xxs_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='xs', drop_path_rate=0.06),
    neck=dict(in_channels=[96, 160, 352]),
)
