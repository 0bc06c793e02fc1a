# The backbone of the quickstart, with the S that divides every map of a 256 x 256 image.
_base_ = '../_base_/size_benchmark.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.BiFormer',
        arch=dict(embed_dims=(32, 64, 128, 256), depths=(1, 1, 3, 1)),
        partition_factor=8,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        norm_eval=False,
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
