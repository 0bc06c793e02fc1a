_base_ = './retinanet_cloformer-xxs_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.06),
    neck=dict(in_channels=[128, 224, 448]),
)
