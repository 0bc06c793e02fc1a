# Semantic FPN 80k with CloFormer-XXS, by the recipe of BiFormer: its authors published none.
_base_ = '../biformer/fpn_biformer-s_8xb4-80k_ade20k-512x512.py'

model = dict(
    backbone=dict(_delete_=True, type='mmbiformer.CloFormer', arch='xxs'),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
