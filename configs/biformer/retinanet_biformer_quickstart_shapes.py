# RetinaNet with a small BiFormer on the embedded shapes: a few minutes on two CPU cores.
_base_ = '../_base_/retinanet_shapes.py'

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
    neck=dict(in_channels=[64, 128, 256], out_channels=128, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
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
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs, end=max_epochs)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
