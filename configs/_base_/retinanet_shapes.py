# A small RetinaNet trained from scratch on the generated shapes: the quickstart, and the recipe of
# the size benchmark. A config adds backbone, widths, anchors and learning rate, and the number of
# epochs both in the loop and in the cosine.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    './default_runtime_mmdet.py',
    'datasets/shapes_detection.py',
]

model = dict(neck=dict(start_level=0), bbox_head=dict(num_classes=6))

train_cfg = dict(type='EpochBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', begin=0, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)
randomness = dict(seed=0)
