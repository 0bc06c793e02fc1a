# A small BiFormer on single generated shapes: a few minutes on two CPU cores.
_base_ = [
    '../_base_/models/classifier_biformer.py',
    '../_base_/datasets/single_shapes.py',
    '../_base_/default_runtime_mmpretrain.py',
]

model = dict(
    data_preprocessor=dict(num_classes=6),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=(32, 64, 128, 256), depths=(1, 1, 3, 1)),
        partition_factor=4,
        drop_path_rate=0.0,
    ),
    head=dict(num_classes=6, in_channels=256),
    train_cfg=None,
)

max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=2, save_best=None),
    visualization=dict(rescale_factor=4),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
randomness = dict(seed=0)
