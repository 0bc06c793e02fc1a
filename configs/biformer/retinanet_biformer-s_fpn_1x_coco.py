# RetinaNet 1x with BiFormer-S, the recipe of arXiv 2303.08810: 8 GPUs x 2 images, AMP.
# The published runs start from ImageNet weights of the backbone: pass them with
# `tools/train.py --pretrained FILE`. Without them the backbone trains from scratch.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

# Stages 2-4 with start_level=0 equal four stages with start_level=1, as published, but leave no
# parameter without a gradient (the norm on the unused first map), which DDP would refuse.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.BiFormer',
        arch='s',
        partition_factor=16,
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        norm_eval=True,
    ),
    neck=dict(in_channels=[128, 256, 512], start_level=0),
)

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='coco/bbox_mAP'))
