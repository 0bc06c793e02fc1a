_base_ = './mask-rcnn_cloformer-xxs_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.06),
    neck=dict(in_channels=[64, 128, 224, 448]),
)
