# Semantic FPN with a small BiFormer on the generated shapes: a few minutes on two CPU cores.
_base_ = [
    '../_base_/models/fpn_biformer.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/default_runtime_mmseg.py',
]

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=(32, 64, 128, 256), depths=(1, 1, 3, 1)),
        partition_factor=5,
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    decode_head=dict(in_channels=[64] * 4, channels=64, num_classes=7),
)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))

num_iters = 800
train_cfg = dict(type='IterBasedTrainLoop', max_iters=num_iters, val_interval=num_iters)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=num_iters, by_epoch=False, begin=0, end=num_iters),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=num_iters))
auto_scale_lr = dict(enable=False, base_batch_size=8)
log_processor = dict(window_size=20)
randomness = dict(seed=0)
