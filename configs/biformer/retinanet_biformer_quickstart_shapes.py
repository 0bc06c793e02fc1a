# RetinaNet with a small BiFormer on the embedded shapes: a few minutes on two CPU cores.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_detection.py',
]

norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.BiFormer',
        arch=dict(embed_dims=(32, 64, 128, 256), depths=(1, 1, 3, 1)),
        partition_factor=5,
        drop_path_rate=0.0,
        out_indices=(1, 2, 3),
        norm_eval=False,
    ),
    neck=dict(
        in_channels=[64, 128, 256], out_channels=128, start_level=0, num_outs=3, norm_cfg=norm_cfg
    ),
    bbox_head=dict(
        num_classes=6,
        in_channels=128,
        feat_channels=128,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            _delete_=True,
            type='AnchorGenerator',
            scales=[2, 2.8, 4, 5.6],
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32],
        ),
    ),
)

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1, max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=4)
log_processor = dict(window_size=50)
randomness = dict(seed=0)
