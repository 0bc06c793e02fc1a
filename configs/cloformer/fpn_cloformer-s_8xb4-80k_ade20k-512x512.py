_base_ = './fpn_cloformer-xxs_8xb4-80k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.06),
    neck=dict(in_channels=[64, 128, 224, 448]),
)
