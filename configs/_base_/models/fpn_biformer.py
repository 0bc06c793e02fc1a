# Semantic FPN on BiFormer-S.
_base_ = './segmentor_biformer.py'

model = dict(
    backbone=dict(drop_path_rate=0.15),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=256, num_outs=4),
    decode_head=dict(
        type='FPNHead',
        in_channels=[256, 256, 256, 256],
        feature_strides=[4, 8, 16, 32],
        channels=128,
    ),
)
