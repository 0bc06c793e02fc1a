# Nothing is published of its drop path: that of BiFormer-T, which is as deep as Swin-T.
_base_ = './biformer-s_8xb128_in1k.py'

model = dict(
    backbone=dict(type='mmbiformer.BiFormerSTL', arch='t', drop_path_rate=0.1),
    head=dict(in_channels=768),
)
