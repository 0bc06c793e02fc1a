# RetinaNet 1x with BiFormer-S, the recipe of arXiv 2303.08810: 8 GPUs x 2 images, AMP.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/adamw-step_1x.py',
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

optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
