_base_ = './biformer-s_8xb128_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.CloFormer',
        arch='xxs',
        out_indices=(3,),
        output_norm='classification',
    ),
    head=dict(in_channels=256),
)
