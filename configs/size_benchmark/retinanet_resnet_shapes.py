# A narrow ResNet-18, all of it trained, with BatchNorm's statistics of the batch.
_base_ = '../_base_/size_benchmark.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        stem_channels=24,
        base_channels=24,
        norm_eval=False,
    ),
    neck=dict(in_channels=[24, 48, 96, 192]),
)
