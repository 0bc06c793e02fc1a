# Mask R-CNN 1x with BiFormer-S, the recipe of arXiv 2303.08810: 8 GPUs x 2 images, AMP.
# The published runs start from ImageNet weights of the backbone: pass them with
# `tools/train.py --pretrained FILE`. Without them the backbone trains from scratch.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbiformer.BiFormer',
        arch='s',
        partition_factor=16,
        drop_path_rate=0.2,
        norm_eval=True,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='coco/bbox_mAP'))
