# The published schedule on COCO: batch 16, 12 epochs.
_base_ = ['mmdet::_base_/schedules/schedule_1x.py', '../default_runtime_mmdet.py']

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4),
)

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='coco/bbox_mAP'))
