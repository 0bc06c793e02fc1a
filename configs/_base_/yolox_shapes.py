# A YOLOX of half the width of YOLOX-s, trained from scratch on shapes of all sizes: what the
# plug-in is compared with. It has no mosaic and no mixing of images, which would change sizes.
_base_ = ['./default_runtime_mmdet.py', 'datasets/shapes_detection.py']

widths = [64, 128, 256]
model = dict(
    type='YOLOX',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.25, out_indices=(2, 3, 4)),
    neck=dict(type='YOLOXPAFPN', in_channels=widths, out_channels=64, num_csp_blocks=1),
    bbox_head=dict(type='YOLOXHead', num_classes=6, in_channels=64, feat_channels=64),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)),
)

# Where tools/size_benchmark.py --compare plugin makes the data, by default.
data_root = 'work_dirs/plugin_benchmark/small/shapes/'
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_validation.json')
test_evaluator = val_evaluator

max_epochs = 10
# Validation would begin after the last epoch: tools/size_benchmark.py evaluates once, at the end.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_begin=max_epochs + 1)
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
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
