# The recipe of the size benchmark: RetinaNet from scratch on shapes of all sizes. A config adds a
# backbone with four outputs and their widths, and nothing else.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    'datasets/shapes_detection.py',
]

norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    neck=dict(out_channels=64, start_level=0, num_outs=5, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        norm_cfg=norm_cfg,
        # Sides of 7 to 178 pixels; the boxes have 5 to 200, and few are longer than 4 : 3.
        anchor_generator=dict(
            _delete_=True,
            type='AnchorGenerator',
            octave_base_scale=1.75,
            scales_per_octave=3,
            ratios=[1.0],
            strides=[4, 8, 16, 32, 64],
        ),
    ),
)

# Where tools/size_benchmark.py makes the data; the small ones of its data sets by default.
data_root = 'work_dirs/size_benchmark/small/shapes/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_validation.json')
test_evaluator = val_evaluator

max_epochs = 8
# Validation would begin after the last epoch: tools/size_benchmark.py evaluates once, at the end.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_begin=max_epochs + 1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# At twice the rate the first hundred steps went faster for BiFormer, slower for Swin.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
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
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
log_processor = dict(window_size=50)
randomness = dict(seed=0)
