# A narrow, short Swin, with the window that divides every map of a 256 x 256 image.
_base_ = '../_base_/size_benchmark.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=28,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=8,
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=[28, 56, 112, 224]),
)
